/**
 * ONNX files for tests, written by hand: graphs of a few nodes whose weights, names and shapes a test chooses, and
 * that misbehave on demand in the real runtime. The numbers of the fields are the specification's:
 * https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
 */
const TYPES = { float32: 1, uint8: 2, int32: 6, int64: 7, string: 8, bool: 9 } as const;
type Type = keyof typeof TYPES;
const ATTRIBUTES = { int: 2, tensor: 4, graph: 5 } as const;
const OPSET = 13;
const IR_VERSION = 8;

type Bytes = Uint8Array;

function varint(value: number): Bytes {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  do {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    bytes.push(rest > 0n ? low | 0x80 : low);
  } while (rest > 0n);
  return Uint8Array.from(bytes);
}

const number = (field: number, value: number) => Buffer.concat([varint(field << 3), varint(value)]);
const bytes = (field: number, value: Bytes) =>
  Buffer.concat([varint((field << 3) | 2), varint(value.length), value]);
const text = (field: number, value: string) => bytes(field, Buffer.from(value));

/** A named value of a graph: each length a number, or a name for any. */
export interface Value {
  readonly name: string;
  readonly type: Type;
  readonly shape: readonly (number | string)[];
}

function valueInfo({ name, type, shape }: Value): Bytes {
  const dims = shape.map((length) =>
    bytes(1, typeof length === "number" ? number(1, length) : text(2, length)),
  );
  const tensorType = [number(1, TYPES[type]), bytes(2, Buffer.concat(dims))];
  return Buffer.concat([text(1, name), bytes(2, bytes(1, Buffer.concat(tensorType)))]);
}

export interface Constant {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array | BigInt64Array | Uint8Array;
}

function tensor({ name, shape, data }: Constant): Bytes {
  const type = data instanceof Float32Array ? "float32" : data instanceof BigInt64Array ? "int64" : "bool";
  return Buffer.concat([
    ...shape.map((length) => number(1, length)),
    number(2, TYPES[type]),
    text(8, name),
    bytes(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength)),
  ]);
}

export interface Node {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes?: Readonly<Record<string, number | Constant | Graph>>;
}

function attribute(name: string, value: number | Constant | Graph): Bytes {
  const [field, kind] =
    typeof value === "number"
      ? [number(3, value), ATTRIBUTES.int]
      : "data" in value
        ? [bytes(5, tensor(value)), ATTRIBUTES.tensor]
        : [bytes(6, graph(value)), ATTRIBUTES.graph];
  return Buffer.concat([text(1, name), field, number(20, kind)]);
}

function node({ op, inputs, outputs, attributes = {} }: Node): Bytes {
  return Buffer.concat([
    ...inputs.map((name) => text(1, name)),
    ...outputs.map((name) => text(2, name)),
    text(4, op),
    ...Object.entries(attributes).map(([name, value]) => bytes(5, attribute(name, value))),
  ]);
}

export interface Graph {
  readonly nodes: readonly Node[];
  readonly constants?: readonly Constant[];
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
}

function graph({ nodes, constants = [], inputs, outputs }: Graph): Bytes {
  return Buffer.concat([
    ...nodes.map((each) => bytes(1, node(each))),
    text(2, "graph"),
    ...constants.map((each) => bytes(5, tensor(each))),
    ...inputs.map((each) => bytes(11, valueInfo(each))),
    ...outputs.map((each) => bytes(12, valueInfo(each))),
  ]);
}

/** The bytes of an ONNX file. */
export function onnxFile(of: Graph): Bytes {
  return Buffer.concat([
    number(1, IR_VERSION),
    bytes(7, graph(of)),
    bytes(8, Buffer.concat([text(1, ""), number(2, OPSET)])),
  ]);
}

/**
 * A graph that misbehaves as its input says, in the real runtime. Of `x [n, 2]` float32 it makes `y [n, 2]`, twice as
 * much; before that it counts to the largest of `loops [n, 1]` int64, which takes a second or so for a million and
 * cannot be interrupted, and fills the largest of `floats [n, 1]` int64 times four bytes of memory.
 */
export function unrulyModel({
  weight = 2,
  batch = "n",
  input = "x",
}: {
  /** NaN: so is every output. */
  readonly weight?: number;
  /** A number: the graph takes batches of that size only. */
  readonly batch?: number | string;
  readonly input?: string;
} = {}): Bytes {
  const scalar = (name: string, data: Constant["data"]): Constant => ({ name, shape: [], data });
  return onnxFile({
    inputs: [
      { name: input, type: "float32", shape: [batch, 2] },
      { name: "loops", type: "int64", shape: [batch, 1] },
      { name: "floats", type: "int64", shape: [batch, 1] },
    ],
    outputs: [{ name: "y", type: "float32", shape: [batch, 2] }],
    constants: [
      scalar("weight", Float32Array.of(weight)),
      scalar("zero", Float32Array.of(0)),
      scalar("true", Uint8Array.of(1)),
      { name: "one length", shape: [1], data: BigInt64Array.of(1n) },
    ],
    nodes: [
      { op: "Mul", inputs: [input, "weight"], outputs: ["doubled"] },
      { op: "ReduceMax", inputs: ["loops"], outputs: ["rounds"], attributes: { keepdims: 0 } },
      {
        op: "Loop",
        inputs: ["rounds", "true", "zero"],
        outputs: ["counted"],
        attributes: {
          body: {
            inputs: [
              { name: "round", type: "int64", shape: [] },
              { name: "go on", type: "bool", shape: [] },
              { name: "before", type: "float32", shape: [] },
            ],
            outputs: [
              { name: "go on still", type: "bool", shape: [] },
              { name: "after", type: "float32", shape: [] },
            ],
            nodes: [
              { op: "Identity", inputs: ["go on"], outputs: ["go on still"] },
              { op: "Mul", inputs: ["before", "before"], outputs: ["after"] },
            ],
          },
        },
      },
      { op: "ReduceMax", inputs: ["floats"], outputs: ["size"], attributes: { keepdims: 0 } },
      { op: "Reshape", inputs: ["size", "one length"], outputs: ["length"] },
      { op: "ConstantOfShape", inputs: ["length"], outputs: ["filled"] },
      { op: "ReduceSum", inputs: ["filled"], outputs: ["sum"], attributes: { keepdims: 0 } },
      { op: "Add", inputs: ["counted", "sum"], outputs: ["nothing"] },
      { op: "Add", inputs: ["doubled", "nothing"], outputs: ["y"] },
    ],
  });
}
