/** Element types that cross the engine port. */
export const DTYPES = ["uint8", "int32", "int64", "float32", "string"] as const;

export type DType = (typeof DTYPES)[number];

/** The memory of a tensor, by its element type. Strings are a plain list. */
export interface TensorData {
  readonly uint8: Uint8Array;
  readonly int32: Int32Array;
  readonly int64: BigInt64Array;
  readonly float32: Float32Array;
  readonly string: readonly string[];
}

/** One input or output of a model. */
export interface TensorSpec {
  readonly name: string;
  readonly dtype: DType;
  /** Of one item, without the batch dimension; `null`: any length. */
  readonly shape: readonly (number | null)[];
}

/** Values in row-major order. `shape` begins with the batch: `[count, …item]`. */
export type Tensor = {
  readonly [D in DType]: {
    readonly dtype: D;
    readonly shape: readonly number[];
    readonly data: TensorData[D];
  };
}[DType];

/** A batch by the names of a model's inputs or outputs; all have the same `shape[0]`. */
export type Tensors = Readonly<Record<string, Tensor>>;

const ARRAYS = {
  uint8: Uint8Array,
  int32: Int32Array,
  int64: BigInt64Array,
  float32: Float32Array,
} as const;

/** Elements of a tensor of that shape. */
export function elements(shape: readonly number[]): number {
  return shape.reduce((product, length) => product * length, 1);
}

/** A tensor of zeros, or of empty strings. */
export function zeros(dtype: DType, shape: readonly number[]): Tensor {
  const size = elements(shape);
  const data = dtype === "string" ? new Array<string>(size).fill("") : new ARRAYS[dtype](size);
  return { dtype, shape, data } as Tensor;
}

/**
 * One batch of several, in memory of its own, in their order. All must have the same names, element types and item
 * shapes, as a kind's `collate` sees to.
 *
 * @throws TypeError if they do not
 */
export function stack(batches: readonly Tensors[]): Tensors {
  const [first] = batches;
  if (!first) throw new TypeError("Expected at least one batch to stack but received none");
  const names = Object.keys(first);
  return Object.fromEntries(
    names.map((name) => [
      name,
      stackTensors(
        name,
        batches.map((batch) => batch[name]),
      ),
    ]),
  );
}

function stackTensors(name: string, tensors: readonly (Tensor | undefined)[]): Tensor {
  const [first] = tensors;
  const like = (tensor: Tensor | undefined): tensor is Tensor =>
    tensor?.dtype === first?.dtype && tensor?.shape.slice(1).join() === first?.shape.slice(1).join();
  if (!first || !tensors.every(like)) {
    throw new TypeError(`Expected "${name}" with the same element type and shape in all batches`);
  }
  const shape = [tensors.reduce((count, { shape }) => count + (shape[0] ?? 0), 0), ...first.shape.slice(1)];
  if (first.dtype === "string") {
    return { dtype: "string", shape, data: tensors.flatMap(({ data }) => data as readonly string[]) };
  }
  const data = new ARRAYS[first.dtype](elements(shape));
  let at = 0;
  for (const tensor of tensors) {
    (data as Uint8Array).set(tensor.data as Uint8Array, at);
    at += tensor.data.length;
  }
  return { dtype: first.dtype, shape, data } as Tensor;
}

/** The item at `index` as a batch of one: views of the same memory. */
export function itemAt(batch: Tensors, index: number): Tensors {
  return Object.fromEntries(
    Object.entries(batch).map(([name, { dtype, shape, data }]) => {
      const item = shape.slice(1);
      const size = elements(item);
      const part =
        dtype === "string"
          ? data.slice(index * size, (index + 1) * size)
          : (data as Uint8Array).subarray(index * size, (index + 1) * size);
      return [name, { dtype, shape: [1, ...item], data: part } as Tensor];
    }),
  );
}
