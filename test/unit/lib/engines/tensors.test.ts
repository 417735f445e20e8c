import { itemAt, stack, type Tensors, zeros } from "../../../../lib/engines/tensors.ts";

const batch = (...values: number[]): Tensors => ({
  a: { dtype: "float32", shape: [values.length, 2], data: Float32Array.from(values.flatMap((v) => [v, -v])) },
  b: { dtype: "int64", shape: [values.length], data: BigInt64Array.from(values.map(BigInt)) },
  c: { dtype: "string", shape: [values.length, 1], data: values.map(String) },
});

test("batches are stacked in their order, every type of them, in new memory", () => {
  const first = batch(1);
  const stacked = stack([first, batch(2, 3)]);
  expect(stacked).toEqual(batch(1, 2, 3));
  expect(stacked["a"]?.data).not.toBe(first["a"]?.data);
});

test("an item is taken out as a batch of one", () => {
  expect(itemAt(batch(1, 2, 3), 1)).toEqual(batch(2));
});

test.each<[string, Tensors]>([
  ["another type", { ...batch(1), b: { dtype: "int32", shape: [1], data: Int32Array.of(1) } }],
  ["another shape", { ...batch(1), a: { dtype: "float32", shape: [1, 3], data: new Float32Array(3) } }],
  ["a name missing", { a: zeros("float32", [1, 2]), b: zeros("int64", [1]) }],
])("%s cannot be stacked", (_, other) => {
  expect(() => stack([batch(1), other])).toThrow(TypeError);
});

test("zeros of every type", () => {
  expect([zeros("uint8", [2]), zeros("int64", [1, 2]), zeros("string", [2])]).toEqual([
    { dtype: "uint8", shape: [2], data: new Uint8Array(2) },
    { dtype: "int64", shape: [1, 2], data: new BigInt64Array(2) },
    { dtype: "string", shape: [2], data: ["", ""] },
  ]);
});
