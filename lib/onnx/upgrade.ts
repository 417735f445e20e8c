import { intsOf, OPSET, tensor } from "./build.ts";
import { ATTRIBUTE, type ModelProto, type NodeProto } from "./proto.ts";

/** Operators that mean the same from version 7 to 13, as classifiers use them. */
const UNCHANGED = new Set(
  (
    "Add AveragePool BatchNormalization Cast Concat Constant Conv Div Exp Flatten Gather Gemm GlobalAveragePool " +
    "GlobalMaxPool Identity LRN LeakyRelu MatMul MaxPool Mul PRelu ReduceMean Relu Reshape Shape Sigmoid Sqrt Sub " +
    "Tanh Transpose"
  ).split(" "),
);
const OLDEST = 7;
/** Of the file format: the oldest that has operators of version 13, and constants that are no inputs. */
const IR_VERSION = 7;

/**
 * The same model with operators of version 13 at least, in place, and without constants that a caller could replace:
 * the oldest form that quantised weights can be written in.
 *
 * @throws Error if an operator would mean something else; it has to be exported anew
 */
export function upgrade(model: ModelProto): void {
  const { graph } = model;
  const constants = new Set(graph.initializer.map(({ name }) => name));
  graph.input = graph.input.filter(({ name }) => !constants.has(name));
  model.irVersion = Math.max(Number(model.irVersion), IR_VERSION);
  const standard = model.opsetImport.find(({ domain }) => !domain || domain === "ai.onnx");
  const version = Number(standard?.version ?? 1);
  if (!standard || version >= OPSET) return;
  if (version < OLDEST)
    throw new Error(`Operators of version ${version} are too old: export with 13 or later`);
  const left = graph.node.filter((node) => !upgraded(node, model));
  if (left.length > 0) {
    const names = [...new Set(left.map(({ opType }) => opType))].join(", ");
    throw new Error(
      `${names} of version ${version} cannot be read: export with operators of version 13 or later`,
    );
  }
  standard.version = OPSET;
}

function upgraded(node: NodeProto, { graph }: ModelProto): boolean {
  if (node.domain) return true;
  switch (node.opType) {
    case "Clip":
      bound(node, graph.initializer);
      return true;
    case "Squeeze":
    case "Unsqueeze":
      axes(node, graph.initializer);
      return true;
    case "Dropout":
      // Without training it does nothing.
      Object.assign(node, { opType: "Identity", attribute: [], output: node.output.slice(0, 1) });
      return true;
    case "Softmax":
    case "LogSoftmax": {
      // What it did by default to [n, classes], which is what a classifier has.
      const axis = intsOf(node, "axis") ?? [1];
      node.attribute = [{ name: "axis", type: ATTRIBUTE.int, i: axis[0] ?? 1 }];
      return true;
    }
    default:
      return UNCHANGED.has(node.opType);
  }
}

/** Clip's bounds were attributes before version 11. */
function bound(node: NodeProto, constants: ModelProto["graph"]["initializer"]): void {
  for (const [i, name] of (["min", "max"] as const).entries()) {
    const found = node.attribute?.find((each) => each.name === name);
    if (!found) continue;
    const constant = `${node.output[0]}_${name}`;
    constants.push(tensor(constant, Float32Array.of(found.f ?? 0), []));
    while (node.input.length < i + 1) node.input.push("");
    node.input[i + 1] = constant;
  }
  node.attribute = [];
}

/** Axes were an attribute before version 13. */
function axes(node: NodeProto, constants: ModelProto["graph"]["initializer"]): void {
  const found = intsOf(node, "axes");
  if (!found) return;
  const constant = `${node.output[0]}_axes`;
  constants.push(tensor(constant, BigInt64Array.from(found, BigInt)));
  node.input = [node.input[0] ?? "", constant];
  node.attribute = [];
}
