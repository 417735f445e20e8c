import { createHash } from "node:crypto";
import { problemsOf, unknownKey } from "../../check.ts";
import type { DType, Tensor, TensorSpec, Tensors } from "../../engines/tensors.ts";
import { ServingError } from "../../errors.ts";
import type { Input, KindOptions, Preparer } from "../kind.ts";
import { type TensorInfo, type TensorInput, tensorBody } from "./input.ts";

type Values = Readonly<Record<string, unknown>>;

/** The tensor kind in the dispatcher: nested lists become tensors of the model's types and shapes. */
export class TensorPreparer implements Preparer<TensorInput, TensorInfo> {
  readonly #maxBytes: number;

  constructor({ maxBytes }: Pick<KindOptions, "maxBytes">) {
    this.#maxBytes = maxBytes;
  }

  /** @throws PAYLOAD_TOO_LARGE, or BAD_REQUEST for JSON that is not `{"inputs": {…}}` */
  async inspect(input: Input): Promise<TensorInfo> {
    // However it was formatted: the same values are the same input.
    const values = JSON.stringify(this.#valuesOf(input));
    return { sha256: createHash("sha256").update(values).digest("hex"), bytes: input.bytes.length };
  }

  async prepare(input: Input, { inputs }: TensorInput): Promise<Tensors> {
    const values = this.#valuesOf(input);
    const names = inputs.map(({ name }) => name);
    const unknown = Object.keys(values).find((name) => !names.includes(name));
    if (unknown !== undefined) throw malformed(unknownKey(unknown, names, "inputs"));
    return Object.fromEntries(inputs.map((spec) => [spec.name, tensorOf(values[spec.name], spec)]));
  }

  async close(): Promise<void> {}

  #valuesOf({ bytes }: Input): Values {
    if (bytes.length > this.#maxBytes) {
      throw new ServingError("PAYLOAD_TOO_LARGE", `An input may have at most ${this.#maxBytes} bytes`);
    }
    let body: unknown;
    try {
      body = JSON.parse(new TextDecoder().decode(bytes));
    } catch {
      throw malformed("The body is no JSON");
    }
    const [problem] = problemsOf(tensorBody, body);
    if (problem !== undefined) throw malformed(problem);
    return (body as { readonly inputs: Values }).inputs;
  }
}

/** A batch of one. @throws BAD_REQUEST if the value is not what the model wants under that name */
function tensorOf(value: unknown, spec: TensorSpec): Tensor {
  const { name, dtype, shape } = spec;
  const lengths = lengthsOf(value);
  const elements: unknown[] = [];
  const even = flatten(value, lengths, elements);
  const fits =
    even &&
    lengths.length === shape.length &&
    shape.every((length, i) => length === null || length === lengths[i]) &&
    elements.every((element) => isOf(dtype, element));
  if (fits) return { dtype, shape: [1, ...lengths], data: dataOf(dtype, elements) } as Tensor;
  const wanted = `${dtype}[${shape.map((length) => length ?? "any").join(", ")}]`;
  throw malformed(`Expected ${wanted} for "${name}" but received ${JSON.stringify(value)?.slice(0, 100)}`);
}

/** The shape of nested lists, by the first of each. */
function lengthsOf(value: unknown): number[] {
  const lengths: number[] = [];
  for (let inner = value; Array.isArray(inner); inner = inner[0]) lengths.push(inner.length);
  return lengths;
}

/** Gathers the elements in row-major order; false where lists of one depth have different lengths. */
function flatten(value: unknown, [length, ...inner]: readonly number[], into: unknown[]): boolean {
  if (length === undefined) {
    into.push(value);
    return !Array.isArray(value);
  }
  return Array.isArray(value) && value.length === length && value.every((each) => flatten(each, inner, into));
}

const INTEGERS: Readonly<Record<string, readonly [least: number, most: number]>> = {
  uint8: [0, 255],
  int32: [-(2 ** 31), 2 ** 31 - 1],
  // JSON's numbers are exact up to here.
  int64: [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
};

function isOf(dtype: DType, element: unknown): boolean {
  if (dtype === "string") return typeof element === "string";
  if (typeof element !== "number") return false;
  const range = INTEGERS[dtype];
  if (range) return Number.isInteger(element) && element >= range[0] && element <= range[1];
  return Number.isFinite(Math.fround(element));
}

function dataOf(dtype: DType, elements: readonly unknown[]): Tensor["data"] {
  switch (dtype) {
    case "string":
      return elements as string[];
    case "uint8":
      return Uint8Array.from(elements as number[]);
    case "int32":
      return Int32Array.from(elements as number[]);
    case "int64":
      return BigInt64Array.from(elements as number[], BigInt);
    case "float32":
      return Float32Array.from(elements as number[]);
  }
}

function malformed(message: string): ServingError {
  return new ServingError("BAD_REQUEST", message);
}
