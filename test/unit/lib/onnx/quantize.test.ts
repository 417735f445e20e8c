import { model, node, tensor, value } from "../../../../lib/onnx/build.ts";
import {
  type GraphProto,
  type ModelProto,
  type NodeProto,
  readModel,
  TYPE,
  writeModel,
} from "../../../../lib/onnx/proto.ts";
import { planOf } from "../../../../lib/onnx/quantize.ts";
import type { Range } from "../../../../lib/onnx/ranges.ts";

const FLOAT = TYPE.float;

function graphOf(parts: Partial<GraphProto> & Pick<GraphProto, "node">): ModelProto {
  return model({
    name: "test",
    initializer: [],
    input: [value("x", FLOAT, ["n", 3, 8, 8])],
    output: [value("y", FLOAT, ["n", 2])],
    ...parts,
  });
}

const conv = (input: string, output: string, weight = "w") =>
  node("Conv", [input, weight, "b"], output, { kernel_shape: [1, 1] });
const weights = [
  tensor("w", Float32Array.of(1, 2, 3, -63, 0, 0), [2, 3, 1, 1]),
  tensor("b", Float32Array.of(0.5, -0.5), [2]),
];
const gemm = [tensor("gw", Float32Array.of(1, 0, 0, 1), [2, 2]), tensor("gb", Float32Array.of(0, 0), [2])];

function quantised(from: ModelProto, ranges: Readonly<Record<string, Range>> = {}) {
  const plan = planOf(from);
  const known = new Map(plan.observed.map((name) => [name, ranges[name] ?? { scale: 0.5, zero: 0 }]));
  // Through a file and back: what is written can be read.
  const written = readModel(writeModel(plan.write(known)));
  const by = new Map(written.graph.node.flatMap((each) => each.output.map((name) => [name, each] as const)));
  return { plan, written, by };
}

/** Operators from an output back to the input along the data. */
function path(by: ReadonlyMap<string, NodeProto>, output: string): string[] {
  const ops: string[] = [];
  for (let at = by.get(output); at; at = by.get(at.input[0] ?? "")) ops.push(at.opType);
  return ops;
}

const bytesOf = ({ written }: { written: ModelProto }, name: string) =>
  written.graph.initializer.find((each) => each.name === name);

test("a convolution's data, weights and bias become integers; its ReLU becomes saturation", () => {
  const from = graphOf({
    node: [
      conv("x", "sum"),
      node("Relu", ["sum"], "seen"),
      node("GlobalAveragePool", ["seen"], "pooled"),
      node("Flatten", ["pooled"], "flat"),
      node("Gemm", ["flat", "gw", "gb"], "y", { transB: 1 }),
    ],
    initializer: [...weights, ...gemm],
  });
  const result = quantised(from);
  expect(result.plan.observed).toEqual(["x", "seen", "pooled"]);
  expect(path(result.by, "y")).toEqual([
    "Gemm",
    "DequantizeLinear",
    "QuantizeLinear",
    "Flatten",
    "DequantizeLinear",
    "QuantizeLinear",
    "GlobalAveragePool",
    "DequantizeLinear",
    "QuantizeLinear",
    "Conv",
    "DequantizeLinear",
    "QuantizeLinear",
  ]);
});

test("each output channel has a scale of its own, and seven bits are used", () => {
  const from = graphOf({ node: [conv("x", "seen"), node("Relu", ["seen"], "y")], initializer: weights });
  const result = quantised(from, { x: { scale: 0.25, zero: 7 } });
  const [weight, scale] = ["quantized", "scale"].map((part) => bytesOf(result, `w_of_seen_${part}`));
  expect([...new Int8Array(new Uint8Array(weight?.rawData ?? []).buffer)]).toEqual([21, 42, 63, -63, 0, 0]);
  expect([...new Float32Array(new Uint8Array(scale?.rawData ?? []).buffer)]).toEqual([
    Math.fround(3 / 63),
    1,
  ]);
  const bias = bytesOf(result, "b_of_seen_quantized");
  // 0.5 / (0.25 · 3 / 63), -0.5 / (0.25 · 1)
  expect([...new Int32Array(new Uint8Array(bias?.rawData ?? []).buffer)]).toEqual([42, -2]);
});

test("bytes that are normalised by one factor need no arithmetic", () => {
  const from = graphOf({
    input: [value("pixels", TYPE.uint8, ["n", 8, 8, 3])],
    node: [
      node("Cast", ["pixels"], "float", { to: FLOAT }),
      node("Sub", ["float", "centre"], "centred"),
      node("Mul", ["centred", "factor"], "normalised"),
      node("Transpose", ["normalised"], "planes", { perm: [0, 3, 1, 2] }),
      conv("planes", "y"),
    ],
    initializer: [
      ...weights,
      tensor("centre", Float32Array.of(128), []),
      tensor("factor", Float32Array.of(1 / 64), []),
    ],
  });
  const result = quantised(from);
  expect(result.plan.observed).toEqual([]);
  expect(path(result.by, "y")).toEqual(["Conv", "DequantizeLinear", "Transpose"]);
  expect(bytesOf(result, "planes_scale")?.rawData).toEqual(Buffer.from(Float32Array.of(1 / 64).buffer));
  expect(bytesOf(result, "planes_zero")?.rawData).toEqual(Buffer.of(128));
});

test("bytes whose zero lies between two levels are quantised from real numbers", () => {
  const from = graphOf({
    input: [value("pixels", TYPE.uint8, ["n", 3, 8, 8])],
    node: [
      node("Cast", ["pixels"], "float", { to: FLOAT }),
      node("Sub", ["float", "centre"], "centred"),
      conv("centred", "y"),
    ],
    initializer: [...weights, tensor("centre", Float32Array.of(127.5), [])],
  });
  const result = quantised(from);
  expect(result.plan.observed).toEqual(["centred"]);
  expect(path(result.by, "y")).toEqual(["Conv", "DequantizeLinear", "QuantizeLinear", "Sub", "Cast"]);
});

test("a ReLU whose input others see too stays", () => {
  const from = graphOf({
    node: [
      conv("x", "sum"),
      node("Relu", ["sum"], "seen"),
      node("Add", ["sum", "seen"], "both"),
      node("Gemm", ["both", "gw", "gb"], "y"),
    ],
    initializer: [...weights, ...gemm],
  });
  expect(quantised(from).by.get("seen")?.opType).toBe("Relu");
});

test("weights that are not constant, and operators without integers, stay as they are", () => {
  const from = graphOf({
    input: [value("x", FLOAT, ["n", 2]), value("given", FLOAT, [2, 2])],
    node: [
      node("MatMul", ["x", "given"], "product"),
      node("Tanh", ["product"], "bent"),
      node("Gemm", ["bent", "gw", "gb"], "y"),
    ],
    initializer: gemm,
  });
  const result = quantised(from);
  expect(result.plan.observed).toEqual(["bent"]);
  expect(result.by.get("product")?.input).toEqual(["x", "given"]);
});

test("an output of the graph stays in real numbers under its name", () => {
  const from = graphOf({
    output: [value("seen", FLOAT, ["n", 2, 8, 8]), value("y", FLOAT, ["n", 2, 8, 8])],
    node: [
      conv("x", "sum"),
      node("Relu", ["sum"], "seen"),
      node("Conv", ["seen", "w2"], "y", { kernel_shape: [1, 1] }),
    ],
    initializer: [...weights, tensor("w2", Float32Array.of(1, 2, 3, 4), [2, 2, 1, 1])],
  });
  const { by } = quantised(from);
  expect(by.get("seen")?.opType).toBe("Relu");
  expect(by.get("y")?.input[0]).toBe("seen_dequantized");
});

test("a model without weights to quantise is refused", () => {
  expect(() => planOf(graphOf({ node: [node("Relu", ["x"], "y")] }))).toThrow("no convolution");
});
