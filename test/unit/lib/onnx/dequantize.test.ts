import { model, node, tensor, value } from "../../../../lib/onnx/build.ts";
import { dequantize } from "../../../../lib/onnx/dequantize.ts";
import { readModel, TYPE, writeModel } from "../../../../lib/onnx/proto.ts";

const scalar = (name: string, number: number) => tensor(name, Float32Array.of(number), []);
const zero = (name: string, number: number) => tensor(name, Uint8Array.of(number), []);

/** Two channels of weights, an image of bytes, saturation that is a ReLU, and one that is none. */
const quantised = model({
  name: "test",
  input: [value("pixels", TYPE.uint8, ["n", 2, 2, 3])],
  output: [value("y", TYPE.float, ["n", 2])],
  initializer: [
    scalar("ps", 0.5),
    zero("pz", 128),
    tensor("wq", Int8Array.of(1, 2, 3, -4, 0, 5), [2, 3]),
    tensor("ws", Float32Array.of(0.5, 2)),
    tensor("wz", Int8Array.of(0, 1)),
    scalar("as", 0.1),
    zero("az", 0),
    zero("bz", 3),
  ],
  node: [
    node("Transpose", ["pixels"], "planes", { perm: [0, 3, 1, 2] }),
    node("DequantizeLinear", ["planes", "ps", "pz"], "real"),
    node("DequantizeLinear", ["wq", "ws", "wz"], "w", { axis: 0 }),
    node("GlobalAveragePool", ["real"], "mean"),
    node("QuantizeLinear", ["mean", "as", "az"], "q"),
    node("Flatten", ["q"], "flat"),
    node("DequantizeLinear", ["flat", "as", "az"], "x"),
    node("Gemm", ["x", "w"], "sum", { transB: 1 }),
    node("QuantizeLinear", ["sum", "as", "bz"], "sq"),
    node("DequantizeLinear", ["sq", "as", "bz"], "y"),
  ],
});

test("bytes become real numbers: weights by their channel, images by one factor, saturation at zero a ReLU", () => {
  const { graph } = readModel(writeModel(dequantize(quantised)));
  const ops = graph.node.map(({ opType, output }) => `${opType} ${output[0]}`);
  expect(ops).toEqual([
    "Transpose planes",
    "Cast real_float",
    "Sub real_centred",
    "Mul real",
    "GlobalAveragePool mean",
    "Relu q",
    "Flatten flat",
    "Identity x",
    "Gemm sum",
    "Identity sq",
    "Identity y",
  ]);
  const constant = (name: string) =>
    graph.initializer.find((each) => each.name === name)?.rawData ?? new Uint8Array();
  const floats = (name: string) => [...new Float32Array(new Uint8Array(constant(name)).buffer)];
  expect(floats("w")).toEqual([0.5, 1, 1.5, -10, -2, 8]);
  expect([floats("real_shift"), floats("real_factor")]).toEqual([[128], [0.5]]);
  // Nothing of the bytes is left.
  expect(graph.initializer.map(({ name }) => name).sort()).toEqual(["real_factor", "real_shift", "w"]);
});
