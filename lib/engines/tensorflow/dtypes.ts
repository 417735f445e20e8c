import type * as Core from "@tensorflow/tfjs-core";
import type { DType, Tensor } from "../tensors.ts";

const INT32 = { least: -(2n ** 31n), most: 2n ** 31n - 1n };

/** TensorFlow's `DT_FLOAT` as ours; a type that we have none for by its own name. */
export function dtypeOf(name: string): string {
  const types: Readonly<Record<string, DType>> = {
    DT_FLOAT: "float32",
    DT_INT32: "int32",
    DT_INT64: "int64",
    DT_UINT8: "uint8",
    DT_STRING: "string",
  };
  return types[name] ?? name;
}

/**
 * A tensor as TensorFlow.js has it. Its whole numbers have 32 bits: bytes are widened.
 *
 * @throws RangeError for an int64 that does not fit
 */
export function toTf(core: typeof Core, { dtype, shape, data }: Tensor): Core.Tensor {
  const dims = [...shape];
  switch (dtype) {
    case "float32":
    case "int32":
      return core.tensor(data, dims, dtype);
    case "uint8":
      return core.tensor(Int32Array.from(data), dims, "int32");
    case "int64":
      return core.tensor(Int32Array.from(data, narrowed), dims, "int32");
    case "string":
      return core.tensor([...data], dims, "string");
  }
}

function narrowed(value: bigint): number {
  if (value < INT32.least || value > INT32.most) {
    throw new RangeError(
      `${value} does not fit into 32 bits, which is what TensorFlow.js has for whole numbers`,
    );
  }
  return Number(value);
}

/**
 * A result in memory of its own.
 *
 * @param wanted its type as the manifest has it: TensorFlow.js knows whole numbers of 32 bits alone
 */
export async function fromTf(tensor: Core.Tensor, wanted: DType | undefined): Promise<Tensor> {
  const shape = [...tensor.shape];
  const data = await tensor.data<"float32" | "int32" | "string">();
  if (tensor.dtype === "string") {
    return { dtype: "string", shape, data: data as unknown as readonly string[] };
  }
  if (tensor.dtype === "float32")
    return { dtype: "float32", shape, data: Float32Array.from(data as Float32Array) };
  if (tensor.dtype !== "int32") throw new TypeError(`Expected numbers or texts but received ${tensor.dtype}`);
  const whole = data as Int32Array;
  if (wanted === "int64") return { dtype: "int64", shape, data: BigInt64Array.from(whole, BigInt) };
  if (wanted === "uint8") return { dtype: "uint8", shape, data: Uint8Array.from(whole) };
  return { dtype: "int32", shape, data: Int32Array.from(whole) };
}
