import { createHash } from "node:crypto";
import type { z } from "zod";
import { problemsOf } from "../../check.ts";
import type { Tensors } from "../../engines/tensors.ts";
import { ServingError } from "../../errors.ts";
import type { Scope } from "../../request/scope.ts";
import type { Input, KindOptions, Preparer } from "../kind.ts";
import { IDS, MAX_CHARACTERS, type TextInfo, type TextInput, textBody } from "./input.ts";
import { tokenize } from "./tokenizer.ts";

/** The text kind in the dispatcher. A text is read in its turn: the longest takes some 25 ms. */
export class TextPreparer implements Preparer<TextInput, TextInfo> {
  readonly #maxBytes: number;

  constructor({ maxBytes }: Pick<KindOptions, "maxBytes">) {
    this.#maxBytes = maxBytes;
  }

  /** @throws PAYLOAD_TOO_LARGE, or BAD_REQUEST for JSON that is not `{"text": …}` */
  async inspect(input: Input): Promise<TextInfo> {
    // The same text is the same input, whether it came as JSON or as it is.
    const utf8 = Buffer.from(this.#textOf(input));
    return {
      sha256: createHash("sha256").update(utf8).digest("hex"),
      characters: [...utf8.toString()].length,
      bytes: utf8.length,
    };
  }

  async prepare(input: Input, { tokenizer }: TextInput, _: Scope, onStart?: () => void): Promise<Tensors> {
    onStart?.();
    const data = tokenize(this.#textOf(input), tokenizer);
    return { [IDS]: { dtype: "int32", shape: [1, data.length], data } };
  }

  async close(): Promise<void> {}

  #textOf({ bytes, type }: Input): string {
    if (bytes.length > this.#maxBytes) throw tooLarge(`${this.#maxBytes} bytes`);
    const body = new TextDecoder().decode(bytes);
    const text = type === "application/json" ? textIn(body) : body;
    if (text.length > MAX_CHARACTERS) throw tooLarge(`${MAX_CHARACTERS} characters`);
    return text;
  }
}

function textIn(body: string): string {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch (error) {
    throw new ServingError("BAD_REQUEST", `The body is not JSON: ${(error as Error).message}`);
  }
  const [problem] = problemsOf(textBody, value);
  if (problem !== undefined) throw new ServingError("BAD_REQUEST", problem);
  return (value as z.infer<typeof textBody>).text;
}

const tooLarge = (limit: string) => new ServingError("PAYLOAD_TOO_LARGE", `A text may have ${limit} at most`);
