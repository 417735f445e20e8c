import { z } from "zod";
import { mismatch } from "../../check.ts";
import { stack, type TensorSpec, type Tensors } from "../../engines/tensors.ts";
import type { InputSpec, Inspection, Kind } from "../kind.ts";
import { type HashedNgrams, hashedNgrams } from "./tokenizer.ts";

/** Characters (UTF-16 units) of the longest text: more than a book's chapter. */
export const MAX_CHARACTERS = 100_000;

/** What a model of this kind wants. */
export interface TextInput extends InputSpec {
  readonly type: "text";
  readonly tokenizer: HashedNgrams;
}

/** What is known of a text. */
export interface TextInfo extends Inspection {
  /** As people count them, near enough: Unicode code points. */
  readonly characters: number;
  /** Of its UTF-8. */
  readonly bytes: number;
}

export const textPart = z.strictObject({
  name: z.literal("text"),
  tokenizer: hashedNgrams.describe("what makes the input's numbers of a text"),
});

/** The text part of a manifest. Its one input: int32 `[length]`, the ids of the tokenizer. */
export type TextPart = Readonly<z.infer<typeof textPart>>;

/** A body in `application/json`. */
export const textBody = z.strictObject({
  text: z
    .string()
    // Said, not checked: a longer one is too large, not malformed.
    .meta({ maxLength: MAX_CHARACTERS, description: "of any script; a lone surrogate counts as U+FFFD" }),
});

/** The tensor of a prepared text: `[1, length]` int32. */
export const IDS = "ids";

/** Ids of a prepared text, and runs of characters of one length. */
const MAX_LENGTH = 1_000_000;
const MAX_RUNS = 64;

export const text: Kind<TextPart, TextInput, TextInfo> = {
  name: "text",
  accepts: ["text/plain", "application/json"],
  field: "text",
  schema: z.toJSONSchema(textBody),
  noun: "text",
  limit: "maxInputBytes",
  part: textPart,
  wanted: z.looseObject({
    tokenizer: hashedNgrams.refine(
      ({ length, characters }) => length <= MAX_LENGTH && characters.length <= MAX_RUNS,
      "a tokenizer of bounded length",
    ),
  }),

  contradictions({ tokenizer }, inputs) {
    const [input, ...more] = inputs;
    if (!input || more.length > 0) return [mismatch("one input", "inputs", inputs)];
    if (input.dtype === "int32" && input.shape.length === 1 && input.shape[0] === tokenizer.length) return [];
    return [mismatch(`int32 [${tokenizer.length}], the tokenizer's length,`, "inputs.0", input)];
  },

  wants: ({ tokenizer }) => ({ type: "text", tokenizer }),

  prepared: ({ tokenizer }) =>
    [{ name: IDS, dtype: "int32", shape: [tokenizer.length] }] satisfies TensorSpec[],

  collate(items, _, [input]) {
    const { [IDS]: batch } = stack(items);
    return (batch && input ? { [input.name]: batch } : {}) as Tensors;
  },

  async open(options) {
    const { TextPreparer } = await import("./preparer.ts");
    return new TextPreparer(options);
  },
};
