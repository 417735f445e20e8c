import { type DType, elements, type Tensor } from "../tensors.ts";

/** `JSON.rawJSON`: whole numbers that no number of JavaScript can hold, as they are. */
const rawJson = (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON;

/** A tensor's elements as JSON has them, flat. */
export function listed({ dtype, data }: Tensor): unknown[] {
  return dtype === "int64" ? Array.from(data, (value) => rawJson(String(value))) : Array.from<unknown>(data);
}

/** Nested as the shape says. */
export function nested(tensor: Tensor): unknown {
  const nest = (values: unknown[], [length, ...inner]: readonly number[]): unknown => {
    if (length === undefined) return values[0];
    const size = elements(inner);
    return Array.from({ length }, (_, i) => nest(values.slice(i * size, (i + 1) * size), inner));
  };
  return nest(listed(tensor), tensor.shape);
}

/**
 * A tensor of values out of a foreign JSON, flat or nested.
 *
 * @throws Error for values that are not of the type, or not as many as the shape says
 */
export function tensorFrom(
  name: string,
  dtype: DType,
  shape: readonly number[],
  values: readonly unknown[],
): Tensor {
  const flat = (values as unknown[]).flat(shape.length) as unknown[];
  const expected = dtype === "string" ? "string" : "number";
  const wrong = flat.find((value) => typeof value !== expected);
  if (wrong !== undefined || flat.some((value) => value === undefined)) {
    throw new Error(`output "${name}" has a value of type ${wrong === null ? "null" : typeof wrong}`);
  }
  if (flat.length !== elements(shape)) {
    throw new Error(`output "${name}" has ${flat.length} values for ${dtype}[${shape.join(", ")}]`);
  }
  switch (dtype) {
    case "string":
      return { dtype, shape, data: flat as string[] };
    case "int64":
      return { dtype, shape, data: BigInt64Array.from(flat as number[], wholeOf(name)) };
    case "int32":
      return { dtype, shape, data: Int32Array.from(flat as number[]) };
    case "uint8":
      return { dtype, shape, data: Uint8Array.from(flat as number[]) };
    case "float32":
      return { dtype, shape, data: Float32Array.from(flat as number[]) };
  }
}

function wholeOf(name: string): (value: number) => bigint {
  return (value) => {
    if (!Number.isSafeInteger(value))
      throw new Error(`output "${name}" has ${value}, which is no exact whole number`);
    return BigInt(value);
  };
}

/** Lengths of nested lists, by their first elements. */
export function shapeOf(values: unknown): number[] {
  const shape: number[] = [];
  for (let at = values; Array.isArray(at); at = at[0]) shape.push(at.length);
  return shape;
}
