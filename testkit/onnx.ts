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

/** What there is to a {@link colourModel}; absent: floats in planes of 32 × 32, any number of them. */
export interface ColourShape {
  readonly type?: number;
  readonly layout?: "nchw" | "nhwc";
  readonly batch?: number | string;
  readonly side?: number | string;
  readonly channels?: number;
  readonly probabilities?: boolean;
  /** A constant in the weights. */
  readonly weight?: number;
  /** Numbers that the file says come out; a text: any. */
  readonly outputs?: number | string;
  /** Flattens two photos into one row. */
  readonly onlyOne?: boolean;
}

/** An ONNX file that takes red photos for the first of three labels, green ones for the second, blue ones for the third. */
export function colourModel(shape: ColourShape = {}): Uint8Array {
  const { type = TYPE.float, layout = "nchw", batch = "n", side = 32, channels = 3 } = shape;
  const { probabilities = false, weight = 8, outputs = 3, onlyOne = false } = shape;
  const planes = layout === "nchw";
  const scale = type === TYPE.float ? 1 : 1 / 32;
  const weights = Float32Array.from({ length: 3 * channels }, (_, i) =>
    i % (channels + 1) === 0 ? weight * scale : 0,
  );
  const nodes: NodeProto[] = [
    node("Cast", ["photo"], "floats", { to: TYPE.float }),
    node("ReduceMean", ["floats"], "mean", { axes: planes ? [2, 3] : [1, 2], keepdims: 0 }),
    ...(onlyOne ? [node("Reshape", ["mean", "one row"], "row")] : []),
    node("Gemm", [onlyOne ? "row" : "mean", "weights"], probabilities ? "logits" : "scores"),
    ...(probabilities ? [node("Softmax", ["logits"], "scores", { axis: 1 })] : []),
  ];
  const item = planes ? [channels, side, side] : [side, side, channels];
  const graph = {
    name: "colours",
    node: nodes,
    initializer: [
      tensor("weights", weights, [channels, 3]),
      ...(onlyOne ? [tensor("one row", BigInt64Array.of(1n, 3n))] : []),
    ],
    input: [value("photo", type, [batch, ...item])],
    output: [value("scores", TYPE.float, [batch, outputs])],
  };
  return writeModel(model(graph));
}
