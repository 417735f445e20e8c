import { model, node, tensor, value } from "../lib/onnx/build.ts";
import { type GraphProto, type NodeProto, TYPE, writeModel } from "../lib/onnx/proto.ts";

/** `AttributeProto.AttributeType.GRAPH` */
const GRAPH_ATTRIBUTE = 5;

/**
 * An ONNX file that misbehaves as its input says, in the real runtime. Of `x [n, 2]` float32 it makes `y [n, 2]`, twice
 * as much; before that it counts to the largest of `loops [n, 1]` int64, which takes a second or so for a million and
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
} = {}): Uint8Array {
  const graph: GraphProto = {
    name: "unruly",
    input: [
      value(input, TYPE.float, [batch, 2]),
      value("loops", TYPE.int64, [batch, 1]),
      value("floats", TYPE.int64, [batch, 1]),
    ],
    output: [value("y", TYPE.float, [batch, 2])],
    initializer: [
      tensor("weight", Float32Array.of(weight), []),
      tensor("zero", Float32Array.of(0), []),
      { ...tensor("true", Uint8Array.of(1), []), dataType: TYPE.bool },
      tensor("one length", BigInt64Array.of(1n)),
    ],
    node: [
      node("Mul", [input, "weight"], "doubled"),
      node("ReduceMax", ["loops"], "rounds", { keepdims: 0 }),
      loop(["rounds", "true", "zero"], "counted"),
      node("ReduceMax", ["floats"], "size", { keepdims: 0 }),
      node("Reshape", ["size", "one length"], "length"),
      node("ConstantOfShape", ["length"], "filled"),
      node("ReduceSum", ["filled"], "sum", { keepdims: 0 }),
      node("Add", ["counted", "sum"], "nothing"),
      node("Add", ["doubled", "nothing"], "y"),
    ],
  };
  return writeModel(model(graph));
}

/** Squares a number so often: `[rounds, whether to go on, the number]`. */
function loop(input: readonly string[], output: string): NodeProto {
  const body: GraphProto = {
    name: "body",
    input: [value("round", TYPE.int64, []), value("go on", TYPE.bool, []), value("before", TYPE.float, [])],
    output: [value("go on still", TYPE.bool, []), value("after", TYPE.float, [])],
    initializer: [],
    node: [node("Identity", ["go on"], "go on still"), node("Mul", ["before", "before"], "after")],
  };
  return { ...node("Loop", input, output), attribute: [{ name: "body", type: GRAPH_ATTRIBUTE, g: body }] };
}
