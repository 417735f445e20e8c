import { resolve } from "node:path";
import { itemAt, type Tensors } from "../../../../lib/engines/tensors.ts";
import { difference, Model } from "../../../../lib/models/model.ts";

const pets = new Model("models/pets-resnet/1");
const times = new Model(resolve("test/fixtures/models/times/1"));

const numbers = (count: number, shape = [count, 3], length = 3 * count): Tensors => ({
  x: { dtype: "float32", shape, data: Float32Array.from({ length }, (_, i) => i) },
});

describe("a model's items", () => {
  test("are split off what a request brings", () => {
    const items = times.split(numbers(2), 2);
    expect(items.map((item) => item["x"])).toEqual([
      { dtype: "float32", shape: [1, 3], data: Float32Array.of(0, 1, 2) },
      { dtype: "float32", shape: [1, 3], data: Float32Array.of(3, 4, 5) },
    ]);
  });

  test.each<[string, unknown]>([
    ["nothing", undefined],
    ["another name", { z: numbers(1)["x"] }],
    ["another count", numbers(2)],
    ["another shape", numbers(1, [1, 4], 4)],
    ["a missing dimension", numbers(1, [3])],
    ["fewer elements than its shape says", numbers(1, [1, 3], 2)],
    ["another type", { x: { dtype: "int32", shape: [1, 3], data: Int32Array.of(1, 2, 3) } }],
    ["a type that is not its memory's", { x: { dtype: "float32", shape: [1, 3], data: [1, 2, 3] } }],
  ])("are refused with %s", (_, tensors) => {
    expect(() => times.split(tensors as Tensors, 1)).toThrow(
      expect.objectContaining({ type: "BAD_REQUEST" }),
    );
  });

  test("get the names of the graph's inputs as a batch", () => {
    const [example] = pets.examples();
    if (!example) throw new Error("pets-resnet has a golden example");
    const { pixels } = pets.collate([example.item, example.item]);
    expect([pixels?.dtype, pixels?.shape]).toEqual(["uint8", [2, 144, 144, 3]]);
  });
});

describe("an engine's specification", () => {
  test("has the smaller of both bounds on the batch, and the manifest's tensors", () => {
    expect([pets.engineSpec(8).maxBatch, pets.engineSpec(1000).maxBatch]).toEqual([8, 64]);
    expect(pets.engineSpec(8)).toMatchObject({
      runtime: "onnx",
      files: ["model.onnx", "golden/pixels.bin"],
      inputs: [{ name: "pixels", dtype: "uint8", shape: [144, 144, 3] }],
      outputs: [{ name: "logits" }],
    });
  });
});

describe("a golden example", () => {
  const [example] = times.examples();
  const outputs = (...values: number[]): Tensors => ({
    y: { dtype: "float32", shape: [1, values.length], data: Float32Array.from(values) },
  });

  test("is met by what the graph made of it then", () => {
    if (!example) throw new Error("times has a golden example");
    expect(difference(example, itemAt(example.outputs, 0))).toBeUndefined();
    expect(difference(example, outputs(2, 1.0000001, -8))).toBeUndefined();
  });

  test.each([
    ["another number", outputs(2, 1, -7), `"y" has -7 at 2, the example -8`],
    ["no number", outputs(2, Number.NaN, -8), `"y" has NaN at 1`],
    ["fewer", outputs(2, 1), `"y" has 2 elements, the example 3`],
    ["nothing", {}, `"y" has 0 elements`],
  ])("is not met by %s", (_, actual, message) => {
    if (!example) throw new Error("times has a golden example");
    expect(difference(example, actual)).toContain(message);
  });
});
