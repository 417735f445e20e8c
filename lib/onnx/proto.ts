import protobuf from "protobufjs/light.js";

/**
 * ONNX files as plain objects. The names and numbers of the fields are those of the format's specification
 * (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); what this project neither reads nor writes is left out and
 * does not survive reading and writing: documentation, training information, sparse tensors, functions.
 */
export interface ModelProto {
  irVersion: number;
  opsetImport: { domain?: string; version: number }[];
  producerName?: string;
  graph: GraphProto;
  /** Functions of the model's own; only that there are some is of interest. */
  functions?: unknown[];
}

export interface GraphProto {
  name: string;
  node: NodeProto[];
  initializer: TensorProto[];
  sparseInitializer?: unknown[];
  input: ValueInfoProto[];
  output: ValueInfoProto[];
  valueInfo?: ValueInfoProto[];
}

export interface NodeProto {
  input: string[];
  output: string[];
  name?: string;
  opType: string;
  /** Absent or empty: the standard operators. */
  domain?: string;
  attribute?: AttributeProto[];
}

export interface AttributeProto {
  name: string;
  type: number;
  f?: number;
  i?: Integer;
  s?: Uint8Array;
  t?: TensorProto;
  g?: GraphProto;
  floats?: number[];
  ints?: Integer[];
  strings?: Uint8Array[];
  tensors?: TensorProto[];
  graphs?: GraphProto[];
}

export interface TensorProto {
  name?: string;
  dims: Integer[];
  dataType: number;
  /** Little-endian; or one of the lists below. */
  rawData?: Uint8Array;
  floatData?: number[];
  int32Data?: number[];
  int64Data?: Integer[];
  doubleData?: number[];
  uint64Data?: Integer[];
  stringData?: Uint8Array[];
  externalData?: { key: string; value: string }[];
  dataLocation?: number;
}

export interface ValueInfoProto {
  name: string;
  type?: {
    tensorType?: {
      elemType?: number;
      shape?: { dim?: { dimValue?: Integer; dimParam?: string }[] };
    };
  };
}

/** 64 bits: a number, or as protobufjs reads it an object whose `toString` is the decimal. */
export type Integer = number | { toString(): string };

/** `TensorProto.DataType`, as far as it is used here. */
export const TYPE = {
  float: 1,
  uint8: 2,
  int8: 3,
  int32: 6,
  int64: 7,
  string: 8,
  bool: 9,
  float16: 10,
  double: 11,
} as const;

/** `AttributeProto.AttributeType`, as far as it is used here. */
export const ATTRIBUTE = { float: 1, int: 2, string: 3, floats: 6, ints: 7, strings: 8 } as const;

type Field = readonly [number: number, type: string, rule?: "repeated"];

const message = (fields: Readonly<Record<string, Field>>) => ({
  fields: Object.fromEntries(
    Object.entries(fields).map(([name, [id, type, rule]]) => [name, { id, type, ...(rule ? { rule } : {}) }]),
  ),
});

const Model = protobuf.Root.fromJSON({
  nested: {
    Model: message({
      irVersion: [1, "int64"],
      producerName: [2, "string"],
      graph: [7, "Graph"],
      opsetImport: [8, "OperatorSet", "repeated"],
      functions: [25, "Unread", "repeated"],
    }),
    OperatorSet: message({ domain: [1, "string"], version: [2, "int64"] }),
    Unread: message({}),
    Graph: message({
      node: [1, "Node", "repeated"],
      name: [2, "string"],
      initializer: [5, "Tensor", "repeated"],
      input: [11, "ValueInfo", "repeated"],
      output: [12, "ValueInfo", "repeated"],
      valueInfo: [13, "ValueInfo", "repeated"],
      sparseInitializer: [15, "Unread", "repeated"],
    }),
    Node: message({
      input: [1, "string", "repeated"],
      output: [2, "string", "repeated"],
      name: [3, "string"],
      opType: [4, "string"],
      attribute: [5, "Attribute", "repeated"],
      domain: [7, "string"],
    }),
    Attribute: message({
      name: [1, "string"],
      f: [2, "float"],
      i: [3, "int64"],
      s: [4, "bytes"],
      t: [5, "Tensor"],
      g: [6, "Graph"],
      floats: [7, "float", "repeated"],
      ints: [8, "int64", "repeated"],
      strings: [9, "bytes", "repeated"],
      tensors: [10, "Tensor", "repeated"],
      graphs: [11, "Graph", "repeated"],
      type: [20, "int32"],
    }),
    Tensor: message({
      dims: [1, "int64", "repeated"],
      dataType: [2, "int32"],
      floatData: [4, "float", "repeated"],
      int32Data: [5, "int32", "repeated"],
      stringData: [6, "bytes", "repeated"],
      int64Data: [7, "int64", "repeated"],
      name: [8, "string"],
      rawData: [9, "bytes"],
      doubleData: [10, "double", "repeated"],
      uint64Data: [11, "uint64", "repeated"],
      externalData: [13, "Entry", "repeated"],
      dataLocation: [14, "int32"],
    }),
    Entry: message({ key: [1, "string"], value: [2, "string"] }),
    ValueInfo: message({ name: [1, "string"], type: [2, "Type"] }),
    Type: message({ tensorType: [1, "TensorType"] }),
    TensorType: message({ elemType: [1, "int32"], shape: [2, "Shape"] }),
    Shape: message({ dim: [1, "Dimension", "repeated"] }),
    Dimension: message({ dimValue: [1, "int64"], dimParam: [2, "string"] }),
  },
}).lookupType("Model");

/**
 * @param bytes of an ONNX file
 * @throws Error if they are none, or if the file needs what is not read: functions, sparse tensors, other files
 */
export function readModel(bytes: Uint8Array): ModelProto {
  const model = decode(bytes);
  const { graph, functions = [] } = model;
  if (!graph?.node || graph.node.length === 0) throw new Error("Not an ONNX model: it has no graph");
  if (functions.length > 0) throw new Error("Cannot read an ONNX model with functions of its own");
  if (graph.sparseInitializer?.length) throw new Error("Cannot read an ONNX model with sparse tensors");
  if (graph.initializer.some(({ externalData }) => externalData?.length)) {
    throw new Error("Cannot read an ONNX model whose weights lie in other files");
  }
  return model;
}

function decode(bytes: Uint8Array): ModelProto {
  try {
    return Model.decode(bytes) as unknown as ModelProto;
  } catch (error) {
    throw new Error(`Not an ONNX model: ${(error as Error).message}`);
  }
}

/** The file's bytes. */
export function writeModel(model: ModelProto): Uint8Array {
  return Model.encode(model as unknown as protobuf.Message).finish();
}
