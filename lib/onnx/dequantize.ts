import { dimsOf, floatsOf, intsOf, node, tensor } from "./build.ts";
import { GraphIndex } from "./graph.ts";
import { ATTRIBUTE, type ModelProto, type NodeProto, type TensorProto, TYPE } from "./proto.ts";

/** Operators that give their input's values as they are. */
const MOVING = new Set(["MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity"]);

/**
 * An int8 model in QuantizeLinear/DequantizeLinear form as the float32 model with the same weights: for runtimes that
 * have no integer operators. What the bytes' saturation did as a ReLU becomes one; other rounding and clipping is gone.
 *
 * @throws Error for a constant that cannot be read
 */
export function dequantize(model: ModelProto): ModelProto {
  const { graph } = model;
  const index = new GraphIndex(graph);
  const nodes: NodeProto[] = [];
  const constants: TensorProto[] = [];
  /** Tensors of bytes that come from outside, by name; those that QuantizeLinear makes are real numbers here. */
  const bytes = new Set(
    graph.input.filter(({ type }) => type?.tensorType?.elemType === TYPE.uint8).map(({ name }) => name),
  );
  for (const each of graph.node) {
    const [from = "", , zero] = each.input;
    const [to = ""] = each.output;
    if (each.opType === "DequantizeLinear") {
      const constant = index.constant(from);
      if (constant) constants.push(realConstant(to, constant, each, index));
      else if (bytes.has(from)) nodes.push(...realBytes(each, index, constants));
      else nodes.push(node("Identity", [from], to));
    } else if (each.opType === "QuantizeLinear") {
      // With its zero at the lowest byte nothing below 0 is left.
      nodes.push(node(bytesOf(index.constant(zero))[0] === 0 ? "Relu" : "Identity", [from], to));
    } else {
      nodes.push(each);
      if (MOVING.has(each.opType) && bytes.has(from)) bytes.add(to);
    }
  }
  const used = new Set(nodes.flatMap(({ input }) => input));
  const kept = graph.initializer.filter(({ name }) => used.has(name ?? ""));
  return { ...model, graph: { ...graph, node: nodes, initializer: [...kept, ...constants], valueInfo: [] } };
}

/** (byte - zero) · scale, the two being one number or one for each index of the axis. */
function realConstant(name: string, constant: TensorProto, each: NodeProto, index: GraphIndex): TensorProto {
  const values = bytesOf(constant);
  const scales = floatsOf(index.constant(each.input[1]) ?? constant);
  const zeros = bytesOf(index.constant(each.input[2]));
  if (!scales) throw new Error(`Expected a float scale for ${name}`);
  const dims = dimsOf(constant);
  const axis = intsOf(each, "axis")?.[0] ?? 1;
  const inner = dims.slice(axis + 1).reduce((product, length) => product * length, 1);
  const channel = (i: number) => (scales.length === 1 ? 0 : Math.floor(i / inner) % scales.length);
  const reals = Float32Array.from(
    values,
    (value, i) => (value - (zeros[channel(i)] ?? 0)) * (scales[channel(i)] ?? 1),
  );
  return tensor(name, reals, dims);
}

function realBytes({ input, output }: NodeProto, index: GraphIndex, constants: TensorProto[]): NodeProto[] {
  const [from = "", scaleName, zeroName] = input;
  const [to = ""] = output;
  const scale = index.scalar(scaleName);
  if (scale === undefined) throw new Error(`Expected one scale for ${from}`);
  const zero = bytesOf(index.constant(zeroName))[0] ?? 0;
  const names = {
    float: `${to}_float`,
    centred: `${to}_centred`,
    zero: `${to}_shift`,
    scale: `${to}_factor`,
  };
  constants.push(
    tensor(names.zero, Float32Array.of(zero), []),
    tensor(names.scale, Float32Array.of(scale), []),
  );
  const cast = node("Cast", [from], names.float);
  return [
    { ...cast, attribute: [{ name: "to", type: ATTRIBUTE.int, i: TYPE.float }] },
    node("Sub", [names.float, names.zero], names.centred),
    node("Mul", [names.centred, names.scale], to),
  ];
}

/** Whole numbers of a constant; none if there is none. */
function bytesOf(constant: TensorProto | undefined): ArrayLike<number> & Iterable<number> {
  if (!constant) return [];
  const { dataType, rawData, int32Data, name } = constant;
  if (!rawData?.length) return int32Data ?? [];
  const { buffer } = new Uint8Array(rawData);
  if (dataType === TYPE.uint8) return new Uint8Array(buffer);
  if (dataType === TYPE.int8) return new Int8Array(buffer);
  if (dataType === TYPE.int32) return new Int32Array(buffer);
  throw new Error(`Expected bytes in ${name}`);
}
