import { dimsOf, floatsOf, intsOf } from "./build.ts";
import { GraphIndex } from "./graph.ts";
import { type GraphProto, type ModelProto, type NodeProto, TYPE, type ValueInfoProto } from "./proto.ts";

/** A graph model of TensorFlow.js: `model.json` and its one shard of weights. */
export interface TfjsModel {
  readonly json: Readonly<Record<string, unknown>>;
  readonly weights: Uint8Array;
}

/** Name of the shard in `model.json`. */
export const SHARD = "group1-shard1of1.bin";

interface TfNode {
  readonly name: string;
  readonly op: string;
  readonly input?: readonly string[];
  readonly attr?: Readonly<Record<string, unknown>>;
}

const TF_TYPES: Readonly<Record<number, string>> = {
  [TYPE.float]: "DT_FLOAT",
  [TYPE.uint8]: "DT_UINT8",
  [TYPE.int32]: "DT_INT32",
  [TYPE.int64]: "DT_INT64",
};
const FLOAT = { type: "DT_FLOAT" };
/** Operators of the same name and meaning in both. */
const SAME: Readonly<Record<string, string>> = {
  Add: "AddV2",
  Sub: "Sub",
  Mul: "Mul",
  Div: "RealDiv",
  Relu: "Relu",
  Softmax: "Softmax",
  Identity: "Identity",
};

const text = (value: string) => ({ s: Buffer.from(value).toString("base64") });
const whole = (values: readonly number[]) => ({ list: { i: values.map(String) } });

/**
 * A convolutional network in ONNX as a graph model of TensorFlow.js: convolutions, pools, sums and products, as
 * ResNets are made of. Images lie as TensorFlow has them, `[n, height, width, channels]`.
 *
 * @param model float32, batch norms folded
 * @throws Error naming an operator that it has no word for
 */
export function toTfjs({ graph }: ModelProto): TfjsModel {
  return new Converter(graph).convert();
}

class Converter {
  readonly #graph: GraphProto;
  readonly #index: GraphIndex;
  readonly #nodes: TfNode[] = [];
  readonly #specs: { name: string; shape: readonly number[]; dtype: string }[] = [];
  readonly #weights: Uint8Array[] = [];
  /** By the names of ONNX: the node that gives the same there, and whether channels come last in it. */
  readonly #made = new Map<
    string,
    { readonly name: string; readonly rank: "image" | "flat" | "planes" | "any" }
  >();

  constructor(graph: GraphProto) {
    this.#graph = graph;
    this.#index = new GraphIndex(graph);
  }

  convert(): TfjsModel {
    for (const input of this.#graph.input) this.#input(input);
    for (const each of this.#graph.node) this.#convert(each);
    for (const { name } of this.#graph.output) {
      const made = this.#of(name);
      if (made.name !== name) this.#push({ name, op: "Identity", input: [made.name], attr: { T: FLOAT } });
    }
    const signature = {
      inputs: Object.fromEntries(this.#graph.input.map((info) => [info.name, described(info)])),
      outputs: Object.fromEntries(this.#graph.output.map((info) => [info.name, described(info)])),
    };
    const json = {
      format: "graph-model",
      generatedBy: "dl-lambda",
      convertedBy: "dl-lambda",
      signature,
      modelTopology: { node: this.#nodes, library: {}, versions: { producer: 1882 } },
      weightsManifest: [{ paths: [SHARD], weights: this.#specs }],
    };
    return { json, weights: Buffer.concat(this.#weights) };
  }

  #input(info: ValueInfoProto): void {
    const { name } = info;
    const { dtype, tensorShape } = described(info);
    this.#push({ name, op: "Placeholder", attr: { dtype: { type: dtype }, shape: { shape: tensorShape } } });
    const channelsFirst = tensorShape.dim.length === 4 && dtype === "DT_FLOAT";
    if (channelsFirst) this.#made.set(name, { name: this.#transposed(name, [0, 2, 3, 1]), rank: "image" });
    else this.#made.set(name, { name, rank: tensorShape.dim.length === 4 ? "planes" : "any" });
  }

  #convert(each: NodeProto): void {
    const { opType, input, output } = each;
    const [to = ""] = output;
    const from = () => this.#of(input[0] ?? "");
    switch (opType) {
      case "Transpose":
        // What lies as TensorFlow has it anyway.
        if (from().rank !== "planes" || String(intsOf(each, "perm")) !== "0,3,1,2") break;
        this.#made.set(to, { name: from().name, rank: "image" });
        return;
      case "Cast":
        this.#node(to, "Cast", [from().name], { SrcT: { type: "DT_UINT8" }, DstT: FLOAT });
        this.#made.set(to, { name: to, rank: from().rank });
        return;
      case "Conv":
        this.#conv(each);
        return;
      case "MaxPool":
        this.#maxPool(each);
        return;
      case "GlobalAveragePool":
        this.#node(to, "Mean", [from().name, this.#whole(`${to}/axes`, [1, 2])], {
          keep_dims: { b: false },
          Tidx: { type: "DT_INT32" },
        });
        this.#made.set(to, { name: to, rank: "flat" });
        return;
      case "Flatten":
        if (from().rank !== "flat") break;
        this.#made.set(to, from());
        return;
      case "Gemm":
        this.#gemm(each);
        return;
      default: {
        const op = SAME[opType];
        if (!op) break;
        const inputs = input.map((name) => this.#of(name));
        const rank = inputs.find((one) => one.rank !== "any")?.rank ?? "any";
        this.#node(
          to,
          op,
          inputs.map(({ name }) => name),
        );
        this.#made.set(to, { name: to, rank });
        return;
      }
    }
    throw new Error(`There is no operator of TensorFlow.js for ${opType} "${to}" as it is used here`);
  }

  #conv(each: NodeProto): void {
    const [data = "", weight, bias] = each.input;
    const [to = ""] = each.output;
    const constant = this.#index.constant(weight);
    const values = constant && floatsOf(constant);
    const group = intsOf(each, "group")?.[0] ?? 1;
    if (!constant || !values || group !== 1 || this.#of(data).rank !== "image") {
      throw new Error(`There is no operator of TensorFlow.js for Conv "${to}" as it is used here`);
    }
    const [outputs = 1, inputs = 1, height = 1, width = 1] = dimsOf(constant);
    const filter = this.#floats(`${to}/filter`, moved(values, outputs, inputs, height * width), [
      height,
      width,
      inputs,
      outputs,
    ]);
    const biases = this.#index.constant(bias);
    const shift = this.#floats(`${to}/bias`, (biases && floatsOf(biases)) ?? new Float32Array(outputs), [
      outputs,
    ]);
    // A ReLU that is all that follows is computed in the same pass.
    const next = this.#index.soleConsumer(to);
    const relu = next?.opType === "Relu";
    this.#node(to, "_FusedConv2D", [this.#of(data).name, filter, shift], {
      ...windowOf(each),
      num_args: { i: "1" },
      epsilon: { f: 0 },
      fused_ops: { list: { s: (relu ? ["BiasAdd", "Relu"] : ["BiasAdd"]).map((op) => text(op).s) } },
    });
    this.#made.set(to, { name: to, rank: "image" });
  }

  #maxPool(each: NodeProto): void {
    const [data = ""] = each.input;
    const [to = ""] = each.output;
    const [top = 0, left = 0, bottom = 0, right = 0] = intsOf(each, "pads") ?? [];
    const [height = 1, width = 1] = intsOf(each, "kernel_shape") ?? [];
    let from = this.#of(data).name;
    if (top + left + bottom + right > 0) {
      const paddings = this.#whole(`${to}/paddings`, [0, 0, top, bottom, left, right, 0, 0], [4, 2]);
      const lowest = this.#floats(`${to}/lowest`, Float32Array.of(-3.4e38), []);
      this.#node(`${to}/padded`, "PadV2", [from, paddings, lowest], { Tpaddings: { type: "DT_INT32" } });
      from = `${to}/padded`;
    }
    const { explicit_paddings: _, ...window } = windowOf(each);
    this.#node(to, "MaxPool", [from], {
      ...window,
      padding: text("VALID"),
      ksize: whole([1, height, width, 1]),
    });
    this.#made.set(to, { name: to, rank: "image" });
  }

  #gemm(each: NodeProto): void {
    const [data = "", weight = "", bias] = each.input;
    const [to = ""] = each.output;
    const transposed = intsOf(each, "transB")?.[0] === 1;
    const product = bias ? `${to}/product` : to;
    this.#node(product, "MatMul", [this.#of(data).name, this.#of(weight).name], {
      transpose_a: { b: false },
      transpose_b: { b: transposed },
    });
    if (bias) this.#node(to, "AddV2", [product, this.#of(bias).name]);
    this.#made.set(to, { name: to, rank: "any" });
  }

  #of(name: string): { readonly name: string; readonly rank: "image" | "flat" | "planes" | "any" } {
    const made = this.#made.get(name);
    if (made) return made;
    const constant = this.#index.constant(name);
    const values = constant && floatsOf(constant);
    if (!constant || !values)
      throw new Error(`Expected a float constant or what a node before makes for "${name}"`);
    const dims = dimsOf(constant);
    if (dims.length > 2) throw new Error(`Cannot tell how the constant "${name}" lies`);
    this.#floats(name, values, dims);
    const known = { name, rank: "any" } as const;
    this.#made.set(name, known);
    return known;
  }

  #node(
    name: string,
    op: string,
    input: readonly string[],
    attr: Readonly<Record<string, unknown>> = {},
  ): void {
    this.#push({ name, op, input, attr: op === "Cast" ? attr : { T: FLOAT, ...attr } });
  }

  #push(each: TfNode): void {
    this.#nodes.push(each);
  }

  #transposed(name: string, perm: readonly number[]): string {
    const to = `${name}/channels_last`;
    this.#node(to, "Transpose", [name, this.#whole(`${to}/perm`, perm)], { Tperm: { type: "DT_INT32" } });
    return to;
  }

  #floats(name: string, values: Float32Array, shape: readonly number[]): string {
    return this.#constant(name, values, shape, "DT_FLOAT", "float32");
  }

  #whole(name: string, values: readonly number[], shape: readonly number[] = [values.length]): string {
    return this.#constant(name, Int32Array.from(values), shape, "DT_INT32", "int32");
  }

  #constant(
    name: string,
    values: Float32Array | Int32Array,
    shape: readonly number[],
    type: string,
    dtype: string,
  ): string {
    const tensorShape = { dim: shape.map((size) => ({ size: String(size) })) };
    this.#push({
      name,
      op: "Const",
      attr: { dtype: { type }, value: { tensor: { dtype: type, tensorShape } } },
    });
    this.#specs.push({ name, shape, dtype });
    this.#weights.push(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    return name;
  }
}

/** Strides, padding and dilations of a window that moves over an image. */
function windowOf(each: NodeProto): Record<string, unknown> {
  const [top = 0, left = 0, bottom = 0, right = 0] = intsOf(each, "pads") ?? [];
  const [down = 1, along = 1] = intsOf(each, "strides") ?? [];
  const [dilatedDown = 1, dilatedAlong = 1] = intsOf(each, "dilations") ?? [];
  return {
    strides: whole([1, down, along, 1]),
    dilations: whole([1, dilatedDown, dilatedAlong, 1]),
    padding: text("EXPLICIT"),
    explicit_paddings: whole([0, 0, top, bottom, left, right, 0, 0]),
    data_format: text("NHWC"),
  };
}

/** `[outputs, inputs, area]` → `[area, inputs, outputs]`. */
function moved(values: Float32Array, outputs: number, inputs: number, area: number): Float32Array {
  const to = new Float32Array(values.length);
  for (let o = 0; o < outputs; o++)
    for (let i = 0; i < inputs; i++)
      for (let a = 0; a < area; a++)
        to[(a * inputs + i) * outputs + o] = values[(o * inputs + i) * area + a] ?? 0;
  return to;
}

function described({ name, type }: ValueInfoProto): {
  readonly name: string;
  readonly dtype: string;
  readonly tensorShape: { readonly dim: readonly { readonly size: string }[] };
} {
  const { elemType = 0, shape } = type?.tensorType ?? {};
  const dtype = TF_TYPES[elemType];
  if (!dtype) throw new Error(`There is no type of TensorFlow.js for "${name}"`);
  // protobufjs leaves a length of 0 in what has a name instead.
  const dim = (shape?.dim ?? []).map(({ dimValue, dimParam }) => ({
    size: dimParam || dimValue === undefined ? "-1" : String(dimValue),
  }));
  return { name: `${name}:0`, dtype, tensorShape: { dim } };
}
