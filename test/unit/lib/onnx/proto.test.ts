import { readFileSync } from "node:fs";
import { readModel, writeModel } from "../../../../lib/onnx/proto.ts";

const shipped = readFileSync("models/pets-resnet/1/model.onnx");

test("what was read can be written and read again", () => {
  const model = readModel(shipped);
  expect(model.graph.input[0]?.name).toBe("pixels");
  expect(readModel(writeModel(model))).toEqual(model);
});

test.each([
  ["nothing", Buffer.alloc(0)],
  ["a text", Buffer.from("not a model")],
  ["half a model", shipped.subarray(0, shipped.length / 2)],
  ["zeros", Buffer.alloc(1000)],
])("%s is no ONNX model", (_, bytes) => {
  expect(() => readModel(bytes)).toThrow("Not an ONNX model");
});
