/** Element types that cross the engine port. */
export type DType = "uint8" | "int32" | "int64" | "float32" | "string";

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
