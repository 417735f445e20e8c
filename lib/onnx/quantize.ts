/**
 * Any float32 classifier as int8: QuantizeLinear/DequantizeLinear around float operators, as in "Integer Quantization
 * for Deep Learning Inference" (Wu et al. 2020, https://arxiv.org/abs/2004.09602). ONNX Runtime fuses them into integer
 * operators.
 *
 * - Weights: symmetric int8, one scale for each output channel.
 * - Activations: uint8, one scale a tensor, from calibration. A ReLU that follows an operator is gone: with the zero
 *   point at 0, saturation does its work.
 * - Biases: int32 at the product of the input's and the weight's scale.
 * - Images that come as uint8 and are normalised by one factor and shift *are* quantised tensors: no arithmetic is left.
 *
 * What has no integer operator stays in float32.
 */
import { dimsOf, floatsOf, intsOf, node, tensor, type Values } from "./build.ts";
import { GraphIndex } from "./graph.ts";
import { type ModelProto, type NodeProto, TYPE } from "./proto.ts";
import type { Range } from "./ranges.ts";

/** Of 8 bits 7 are used: on x86 without VNNI two products are added in 16 bits, where 2 · 255 · 127 saturates. */
const WEIGHT_LIMIT = 63;
/** How much of an int32 a bias may fill, so that sums of products still fit beside it. */
const BIAS_LIMIT = 2 ** 30;
const SMALLEST_SCALE = 1e-12;
const BYTE = 255;

/** With weights: input 0 is data, 1 weights, 2 a bias. */
const WEIGHTED = new Set(["Conv", "Gemm", "MatMul"]);
/** All inputs are data, and there is an integer operator. */
const COMBINING = new Set(["Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool"]);
/** The output is made of the input's values as they are, so it keeps its range. */
const MOVING = new Set(["MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity"]);

export interface Plan {
  /** Tensors whose ranges calibration has to find. */
  readonly observed: readonly string[];
  /** Writes the int8 model. @param ranges of all `observed` */
  write(ranges: ReadonlyMap<string, Range>): ModelProto;
}

/**
 * What of a model can become integers.
 *
 * @param model batch norms folded, operators of version 13 or later
 * @throws Error if that is nothing
 */
export function planOf(model: ModelProto): Plan {
  const index = new GraphIndex(model.graph);
  const bytes = byteInputs(index);
  const integer = integerNodes(index, new Set([...bytes.values()].flatMap(({ chain }) => chain)));
  if (![...integer].some(({ opType }) => WEIGHTED.has(opType))) {
    throw new Error("Found no convolution or matrix product with constant weights to quantise");
  }
  const activations = foldedActivations(index, integer);
  /** Names of all tensors that become bytes. */
  const quantised = new Set<string>();
  for (const each of integer) for (const name of dataInputs(each)) quantised.add(name);
  const followed = new Map<string, string>();
  for (const each of integer) {
    const [from, to] = [each.input[0] ?? "", each.output[0] ?? ""];
    if (MOVING.has(each.opType) && quantised.has(to)) followed.set(to, from);
  }
  const observed = [...quantised].filter((name) => !followed.has(name) && !bytes.has(name));
  return {
    observed,
    write: (ranges) =>
      new Writer(model, index, { integer, activations, bytes, quantised, followed }, ranges).write(),
  };
}

interface Parts {
  readonly integer: ReadonlySet<NodeProto>;
  /** ReLUs that saturation replaces. */
  readonly activations: ReadonlySet<NodeProto>;
  readonly bytes: ReadonlyMap<string, ByteInput>;
  readonly quantised: ReadonlySet<string>;
  /** Tensors with the range of another. */
  readonly followed: ReadonlyMap<string, string>;
}

/** A tensor that is a uint8 input of the graph, moved about and seen as real numbers. */
interface ByteInput extends Range {
  readonly input: string;
  /** The nodes between, in their order; only those that move values are needed. */
  readonly chain: readonly NodeProto[];
}

function dataInputs({ opType, input }: NodeProto): readonly string[] {
  return COMBINING.has(opType) ? input : input.slice(0, 1);
}

/** The nodes with an integer operator; those between a byte input and its use as real numbers are none of them. */
function integerNodes(index: GraphIndex, between: ReadonlySet<NodeProto>): ReadonlySet<NodeProto> {
  const found = new Set<NodeProto>();
  const { graph } = index;
  const isFloat = (name: string) => index.constant(name) === undefined && !isOther(index, name);
  for (const each of graph.node) {
    if (each.domain || between.has(each)) continue;
    const weighted = WEIGHTED.has(each.opType) && hasConstantWeights(each, index);
    const combining = COMBINING.has(each.opType) && each.input.every(isFloat) && !hasCount(each);
    if (weighted || combining) found.add(each);
  }
  // Nodes that move values come along where bytes come in and someone wants bytes out of them.
  for (const each of [...graph.node].reverse()) {
    if (
      each.domain ||
      between.has(each) ||
      !MOVING.has(each.opType) ||
      each.output.filter(Boolean).length > 1
    )
      continue;
    if (!isFloat(each.input[0] ?? "")) continue;
    const wanted = index.consumers(each.output[0]).some((next) => found.has(next));
    if (wanted && !index.isOutput(each.output[0])) found.add(each);
  }
  return found;
}

/** AveragePool that counts its padding has no integer operator with the same numbers. */
function hasCount(each: NodeProto): boolean {
  return each.opType === "AveragePool" && intsOf(each, "count_include_pad")?.[0] === 1;
}

/** Whether a tensor is known to hold something else than float32. */
function isOther({ graph }: GraphIndex, name: string): boolean {
  const value = [...graph.input, ...(graph.valueInfo ?? [])].find((each) => each.name === name);
  const type = value?.type?.tensorType?.elemType;
  return type !== undefined && type !== TYPE.float;
}

function hasConstantWeights(each: NodeProto, index: GraphIndex): boolean {
  const [data, weight, bias] = each.input;
  const constant = index.constant(weight);
  if (!constant || constant.dataType !== TYPE.float || index.constant(data)) return false;
  if (bias && index.constant(bias)?.dataType !== TYPE.float) return false;
  if (each.opType === "Conv") return true;
  if (dimsOf(constant).length !== 2) return false;
  if (each.opType === "MatMul") return true;
  const factor = (name: string) => each.attribute?.find((attribute) => attribute.name === name)?.f ?? 1;
  return factor("alpha") === 1 && factor("beta") === 1 && !intsOf(each, "transA")?.[0];
}

/** ReLU, or Clip from 0, after an integer operator whose output nobody else sees. */
function foldedActivations(index: GraphIndex, integer: ReadonlySet<NodeProto>): ReadonlySet<NodeProto> {
  const found = new Set<NodeProto>();
  for (const each of index.graph.node) {
    const from = index.producer(each.input[0]);
    const after =
      from && integer.has(from) && !MOVING.has(from.opType) && index.soleConsumer(each.input[0]) === each;
    const stopsAtZero =
      each.opType === "Relu" || (each.opType === "Clip" && index.scalar(each.input[1]) === 0);
    // Its output must become bytes, else nothing saturates.
    const isBytes = index.consumers(each.output[0]).some((next) => integer.has(next));
    if (after && stopsAtZero && isBytes && !index.isOutput(each.output[0])) found.add(each);
  }
  return found;
}

/** Follows each uint8 input of the graph through cast, scalar arithmetic and transpositions. */
function byteInputs(index: GraphIndex): ReadonlyMap<string, ByteInput> {
  const found = new Map<string, ByteInput>();
  for (const { name, type } of index.graph.input) {
    if (type?.tensorType?.elemType !== TYPE.uint8) continue;
    let [scale, shift, at] = [1, 0, name];
    const chain: NodeProto[] = [];
    for (let next = index.soleConsumer(at); next; next = index.soleConsumer(at)) {
      const other = index.scalar(next.input[1]);
      const first = next.input[0] === at;
      if (first && next.opType === "Sub" && other !== undefined) shift -= other;
      else if (first && next.opType === "Add" && other !== undefined) shift += other;
      else if (first && next.opType === "Mul" && other !== undefined)
        [scale, shift] = [scale * other, shift * other];
      else if (first && next.opType === "Div" && other !== undefined)
        [scale, shift] = [scale / other, shift / other];
      else if (next.opType !== "Cast" && next.opType !== "Transpose") break;
      chain.push(next);
      at = next.output[0] ?? "";
    }
    const zero = Math.round(-shift / scale);
    const exact = Math.abs(-shift / scale - zero) < 1e-3 && zero >= 0 && zero <= BYTE && scale > 0;
    if (exact && chain.some(({ opType }) => opType === "Cast"))
      found.set(at, { input: name, chain, scale, zero });
  }
  return found;
}

class Writer {
  readonly #model: ModelProto;
  readonly #index: GraphIndex;
  readonly #parts: Parts;
  readonly #ranges: ReadonlyMap<string, Range>;
  readonly #nodes: NodeProto[] = [];
  readonly #constants: ModelProto["graph"]["initializer"] = [];

  constructor(model: ModelProto, index: GraphIndex, parts: Parts, ranges: ReadonlyMap<string, Range>) {
    this.#model = model;
    this.#index = index;
    this.#parts = parts;
    this.#ranges = ranges;
  }

  write(): ModelProto {
    const { graph } = this.#model;
    const gone = new Set([...this.#parts.bytes.values()].flatMap(({ chain }) => chain));
    for (const [name, input] of this.#parts.bytes) this.#byteInput(name, input);
    for (const { name } of graph.input) if (this.#parts.quantised.has(name)) this.#toBytes(name);
    for (const each of graph.node) {
      if (gone.has(each) || this.#parts.activations.has(each)) continue;
      this.#nodes.push(this.#rewritten(each));
      for (const name of this.#visible(each)) if (this.#parts.quantised.has(name)) this.#toBytes(name);
    }
    const used = new Set(this.#nodes.flatMap(({ input }) => input));
    const kept = graph.initializer.filter(({ name }) => used.has(name ?? ""));
    return {
      ...this.#model,
      // Shapes of tensors that are gone, or are of bytes now, are worse than none.
      graph: { ...graph, node: this.#nodes, initializer: [...kept, ...this.#constants], valueInfo: [] },
    };
  }

  /** A node with its inputs dequantised, its weights too, and the output of the ReLU that it now is as well. */
  #rewritten(each: NodeProto): NodeProto {
    const input = each.input.map((name) => (this.#isBytes(name) ? `${name}_dequantized` : name));
    if (this.#parts.integer.has(each) && WEIGHTED.has(each.opType)) {
      const scale = this.#weight(each, input);
      if (each.input[2]) input[2] = this.#bias(each, scale);
    }
    return { ...each, input, output: this.#visible(each) };
  }

  #isBytes(name: string): boolean {
    return this.#parts.quantised.has(name) || this.#parts.bytes.has(name);
  }

  #visible(each: NodeProto): string[] {
    const next = this.#index.soleConsumer(each.output[0]);
    return next && this.#parts.activations.has(next) ? [...next.output] : [...each.output];
  }

  #rangeOf(name: string): Range {
    const from = this.#parts.followed.get(name);
    if (from !== undefined) return this.#rangeOf(from);
    const range = this.#parts.bytes.get(name) ?? this.#ranges.get(name);
    if (!range) throw new Error(`Expected a range of ${name}`);
    return range;
  }

  #byteInput(name: string, { input, chain }: ByteInput): void {
    let at = input;
    for (const each of chain) {
      if (each.opType !== "Transpose") continue;
      const output = `${each.output[0]}_bytes`;
      this.#nodes.push({ ...each, name: output, input: [at], output: [output] });
      at = output;
    }
    this.#nodes.push(node("DequantizeLinear", [at, ...this.#parameters(name)], `${name}_dequantized`));
  }

  #toBytes(name: string): void {
    if (this.#parts.bytes.has(name)) return;
    const parameters = this.#parameters(name);
    this.#nodes.push(
      node("QuantizeLinear", [name, ...parameters], `${name}_quantized`),
      node("DequantizeLinear", [`${name}_quantized`, ...parameters], `${name}_dequantized`),
    );
  }

  #parameters(name: string): string[] {
    const { scale, zero } = this.#rangeOf(name);
    return [
      this.#constant(`${name}_scale`, Float32Array.of(scale), []),
      this.#constant(`${name}_zero`, Uint8Array.of(zero), []),
    ];
  }

  /** Puts the quantised weights into `input`. @returns their scales */
  #weight(each: NodeProto, input: string[]): Float32Array {
    const [data = "", name = "", bias] = each.input;
    const constant = this.#index.constant(name);
    const values = constant && floatsOf(constant);
    if (!constant || !values) throw new Error(`Expected float weights ${name}`);
    const dims = dimsOf(constant);
    const axis = each.opType === "Conv" || intsOf(each, "transB")?.[0] === 1 ? 0 : 1;
    const biases = bias ? floatsOf(this.#index.constant(bias) ?? constant) : undefined;
    const scale = weightScales(values, dims, axis, biases, this.#rangeOf(data).scale);
    const whole = quantizeWeights(values, dims, axis, scale);
    // Two layers may share weights, but not the scales that their biases need.
    input[1] = this.#dequantized(`${name}_of_${each.output[0]}`, whole, dims, scale, axis);
    return scale;
  }

  #bias(each: NodeProto, weightScale: Float32Array): string {
    const constant = this.#index.constant(each.input[2]);
    const values = constant && floatsOf(constant);
    if (!values) throw new Error(`Expected a float bias ${each.input[2]}`);
    const incoming = this.#rangeOf(each.input[0] ?? "").scale;
    const scale = weightScale.map((of) => of * incoming);
    const whole = Int32Array.from(scale, (of, i) => Math.round((values[i % values.length] ?? 0) / of));
    return this.#dequantized(`${each.input[2]}_of_${each.output[0]}`, whole, [whole.length], scale, 0);
  }

  #dequantized(
    name: string,
    values: Values,
    dims: readonly number[],
    scale: Float32Array,
    axis: number,
  ): string {
    const zero = values instanceof Int32Array ? new Int32Array(scale.length) : new Int8Array(scale.length);
    const inputs = [
      this.#constant(`${name}_quantized`, values, dims),
      this.#constant(`${name}_scale`, scale, [scale.length]),
      this.#constant(`${name}_zero`, zero, [scale.length]),
    ];
    this.#nodes.push(node("DequantizeLinear", inputs, `${name}_dequantized`, { axis }));
    return `${name}_dequantized`;
  }

  #constant(name: string, values: Values, dims: readonly number[]): string {
    if (!this.#constants.some((known) => known.name === name))
      this.#constants.push(tensor(name, values, dims));
    return name;
  }
}

/** One scale for each index of `axis`. A channel of next to no weights still has room for its bias. */
function weightScales(
  values: Float32Array,
  dims: readonly number[],
  axis: number,
  biases: Float32Array | undefined,
  incoming: number,
): Float32Array {
  const largest = new Float32Array(dims[axis] ?? 1);
  eachChannel(values, dims, axis, (value, channel) => {
    largest[channel] = Math.max(largest[channel] ?? 0, Math.abs(value));
  });
  return largest.map((most, channel) => {
    const bias = Math.abs(biases?.[channel % biases.length] ?? 0);
    return Math.max(most / WEIGHT_LIMIT, bias / incoming / BIAS_LIMIT + SMALLEST_SCALE);
  });
}

function quantizeWeights(
  values: Float32Array,
  dims: readonly number[],
  axis: number,
  scale: Float32Array,
): Int8Array {
  const bytes = new Int8Array(values.length);
  eachChannel(values, dims, axis, (value, channel, i) => {
    bytes[i] = Math.round(value / (scale[channel] ?? 1));
  });
  return bytes;
}

function eachChannel(
  values: Float32Array,
  dims: readonly number[],
  axis: number,
  see: (value: number, channel: number, index: number) => void,
): void {
  const channels = dims[axis] ?? 1;
  const inner = dims.slice(axis + 1).reduce((product, length) => product * length, 1);
  for (let i = 0; i < values.length; i++) see(values[i] ?? 0, Math.floor(i / inner) % channels, i);
}
