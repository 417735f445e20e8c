import {
  ATTRIBUTE,
  type AttributeProto,
  type ModelProto,
  type NodeProto,
  type TensorProto,
  TYPE,
  type ValueInfoProto,
} from "./proto.ts";

/** Values of a constant, or of an attribute. */
export type Values = Float32Array | Int8Array | Uint8Array | Int32Array | BigInt64Array;

const TYPES = new Map<unknown, number>([
  [Float32Array, TYPE.float],
  [Int8Array, TYPE.int8],
  [Uint8Array, TYPE.uint8],
  [Int32Array, TYPE.int32],
  [BigInt64Array, TYPE.int64],
]);

/** A constant. `dims` of a scalar are `[]`. */
export function tensor(name: string, values: Values, dims: readonly number[] = [values.length]): TensorProto {
  const dataType = TYPES.get(values.constructor);
  if (dataType === undefined) throw new TypeError(`No ONNX type for ${values.constructor.name}`);
  const rawData = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return { name, dims: [...dims], dataType, rawData };
}

/** Whole numbers are attributes of integers, other numbers of floats; lists of numbers are lists of integers. */
export function node(
  opType: string,
  input: readonly string[],
  output: string,
  attributes: Readonly<Record<string, number | readonly number[]>> = {},
): NodeProto {
  return {
    opType,
    name: output,
    input: [...input],
    output: [output],
    attribute: Object.entries(attributes).map(([name, value]) => attribute(name, value)),
  };
}

function attribute(name: string, value: number | readonly number[]): AttributeProto {
  if (typeof value !== "number") return { name, type: ATTRIBUTE.ints, ints: [...value] };
  return Number.isInteger(value)
    ? { name, type: ATTRIBUTE.int, i: value }
    : { name, type: ATTRIBUTE.float, f: value };
}

/** An input or output of a graph; a text is a dimension of any length. */
export function value(name: string, elemType: number, shape: readonly (number | string)[]): ValueInfoProto {
  const dim = shape.map((length) =>
    typeof length === "string" ? { dimParam: length } : { dimValue: length },
  );
  return { name, type: { tensorType: { elemType, shape: { dim } } } };
}

/** Version of the standard operators: the first in which DequantizeLinear takes a scale for each channel. */
export const OPSET = 13;
/** The oldest version of the file format that has them. */
const IR_VERSION = 7;

export function model(graph: ModelProto["graph"]): ModelProto {
  return {
    irVersion: IR_VERSION,
    opsetImport: [{ domain: "", version: OPSET }],
    producerName: "dl-lambda",
    graph,
  };
}

/** The numbers of a float constant, whichever way it is stored; undefined if it is of another type. */
export function floatsOf({ dataType, rawData, floatData }: TensorProto): Float32Array | undefined {
  if (dataType !== TYPE.float) return undefined;
  if (!rawData?.length) return Float32Array.from(floatData ?? []);
  // A copy: what lies in a file need not lie on a boundary of four bytes.
  return new Float32Array(new Uint8Array(rawData).buffer);
}

export function dimsOf({ dims }: TensorProto): number[] {
  return dims.map(Number);
}

/** An attribute's integer or integers. */
export function intsOf(node: NodeProto, name: string): number[] | undefined {
  const found = node.attribute?.find((each) => each.name === name);
  if (!found) return undefined;
  return found.type === ATTRIBUTE.int ? [Number(found.i ?? 0)] : (found.ints ?? []).map(Number);
}
