import { z } from "zod";
import { mismatch } from "../../check.ts";
import { stack, type TensorSpec, type Tensors } from "../../engines/tensors.ts";
import type { Kind } from "../kind.ts";
import { IDS, type TextInfo, type TextInput, textBody } from "./input.ts";
import { hashedNgrams } from "./tokenizer.ts";

export const textPart = z.strictObject({
  name: z.literal("text"),
  tokenizer: hashedNgrams.describe("what makes the input's numbers of a text"),
});

/** The text part of a manifest. Its one input: int32 `[length]`, the ids of the tokenizer. */
export type TextPart = Readonly<z.infer<typeof textPart>>;

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
