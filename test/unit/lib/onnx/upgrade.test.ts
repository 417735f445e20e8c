import { model, node, tensor, value } from "../../../../lib/onnx/build.ts";
import {
  ATTRIBUTE,
  type ModelProto,
  type NodeProto,
  readModel,
  TYPE,
  writeModel,
} from "../../../../lib/onnx/proto.ts";
import { upgrade } from "../../../../lib/onnx/upgrade.ts";

function old(nodes: NodeProto[], version = 7): ModelProto {
  const built = model({
    name: "test",
    node: nodes,
    initializer: [tensor("w", Float32Array.of(1))],
    // Before version 4 of the file format every constant was an input as well.
    input: [value("x", TYPE.float, ["n", 4]), value("w", TYPE.float, [1])],
    output: [value("y", TYPE.float, ["n", 4])],
  });
  return readModel(writeModel({ ...built, irVersion: 3, opsetImport: [{ version }] }));
}

function upgraded(nodes: NodeProto[], version?: number): ModelProto {
  const from = old(nodes, version);
  upgrade(from);
  return from;
}

test("constants are inputs no longer, and the versions are those that quantised weights need", () => {
  const { graph, irVersion, opsetImport } = upgraded([node("Relu", ["x"], "y")]);
  expect(graph.input.map(({ name }) => name)).toEqual(["x"]);
  expect([Number(irVersion), Number(opsetImport[0]?.version)]).toEqual([7, 13]);
});

test("what moved from attributes to inputs moves", () => {
  const clip: NodeProto = {
    ...node("Clip", ["x"], "clipped"),
    attribute: [{ name: "max", type: ATTRIBUTE.float, f: 6 }],
  };
  const { graph } = upgraded([clip, node("Squeeze", ["clipped"], "y", { axes: [1, 2] })]);
  expect(graph.node.map(({ input }) => input)).toEqual([
    ["x", "", "clipped_max"],
    ["clipped", "y_axes"],
  ]);
  const constants = new Map(graph.initializer.map((each) => [each.name, each.rawData]));
  expect(constants.get("clipped_max")).toEqual(new Uint8Array(Float32Array.of(6).buffer));
  expect(constants.get("y_axes")).toEqual(new Uint8Array(BigInt64Array.of(1n, 2n).buffer));
});

test("a model of version 13 or later is left alone", () => {
  expect(
    upgraded([node("Resize", ["x"], "y")], 17).opsetImport.map(({ version }) => Number(version)),
  ).toEqual([17]);
});

test("an operator that would mean something else is refused by name", () => {
  expect(() => upgraded([node("Resize", ["x"], "y")])).toThrow("Resize of version 7");
  expect(() => upgraded([node("Relu", ["x"], "y")], 6)).toThrow("too old");
});
