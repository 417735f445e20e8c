import { z } from "zod";
import type { InputSpec, Inspection } from "../kind.ts";
import type { HashedNgrams } from "./tokenizer.ts";

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

/** A body in `application/json`. */
export const textBody = z.strictObject({
  text: z
    .string()
    // Said, not checked: a longer one is too large, not malformed.
    .meta({ maxLength: MAX_CHARACTERS, description: "of any script; a lone surrogate counts as U+FFFD" }),
});

/** The tensor of a prepared text: `[1, length]` int32. */
export const IDS = "ids";
