import type { TensorSpec } from "../../../../../lib/engines/tensors.ts";
import { tensor } from "../../../../../lib/kinds/tensor/kind.ts";
import { createScope } from "../../../../../lib/request/scope.ts";
import { tensorTask } from "../../../../../lib/tasks/tensor.ts";

const scope = createScope();

async function prepare(values: unknown, spec: Omit<TensorSpec, "name">) {
  const preparer = await tensor.open({ maxBytes: 1000 });
  const inputs = [{ name: "x", ...spec }];
  const input = { bytes: Buffer.from(JSON.stringify({ inputs: { x: values } })), type: "application/json" };
  return (await preparer.prepare(input, { type: "tensor", inputs }, scope))["x"];
}

describe("plain tensors", () => {
  test.each<[unknown, Omit<TensorSpec, "name">, number[], ArrayLike<unknown>]>([
    [5, { dtype: "float32", shape: [] }, [1], Float32Array.of(5)],
    [
      [
        [1, 2, 3],
        [4, 5, 6],
      ],
      { dtype: "int32", shape: [2, 3] },
      [1, 2, 3],
      Int32Array.of(1, 2, 3, 4, 5, 6),
    ],
    [[1, 2], { dtype: "int64", shape: [null] }, [1, 2], BigInt64Array.of(1n, 2n)],
    [[0, 255], { dtype: "uint8", shape: [2] }, [1, 2], Uint8Array.of(0, 255)],
    [["a", ""], { dtype: "string", shape: [2] }, [1, 2], ["a", ""]],
    [[], { dtype: "float32", shape: [null] }, [1, 0], Float32Array.of()],
  ])("%j is %j", async (values, spec, shape, data) => {
    expect(await prepare(values, spec)).toEqual({ dtype: spec.dtype, shape, data });
  });

  test.each<[unknown, Omit<TensorSpec, "name">]>([
    [undefined, { dtype: "float32", shape: [1] }],
    [null, { dtype: "float32", shape: [] }],
    [[1, 2], { dtype: "float32", shape: [3] }],
    [[1, 2], { dtype: "float32", shape: [] }],
    [[[1, 2], [3]], { dtype: "float32", shape: [null, null] }],
    [[1, [2]], { dtype: "float32", shape: [2] }],
    [["1"], { dtype: "float32", shape: [1] }],
    [[1e39], { dtype: "float32", shape: [1] }],
    [[1.5], { dtype: "int32", shape: [1] }],
    [[2 ** 31], { dtype: "int32", shape: [1] }],
    [[256], { dtype: "uint8", shape: [1] }],
    [[-1], { dtype: "uint8", shape: [1] }],
    [[1], { dtype: "string", shape: [1] }],
  ])("%j is refused for %j", async (values, spec) => {
    await expect(prepare(values, spec)).rejects.toMatchObject({
      type: "BAD_REQUEST",
      message: expect.stringContaining(`for "x"`),
    });
  });

  test("are the same input however they were formatted", async () => {
    const preparer = await tensor.open({ maxBytes: 1000 });
    const digest = async (json: string) =>
      (await preparer.inspect({ bytes: Buffer.from(json), type: "application/json" }, scope)).sha256;
    expect(await digest('{"inputs":{"x":[1,2]}}')).toBe(await digest('{ "inputs": { "x": [1.0, 2] } }'));
    expect(await digest('{"inputs":{"x":[1,2]}}')).not.toBe(await digest('{"inputs":{"x":[2,1]}}'));
  });

  test.each([
    ["{", "The body is no JSON"],
    ["[]", "Expected an object for it"],
    ['{"inputs":[]}', "for inputs"],
    ['{"inputs":{},"input":{}}', `Unknown key "input": did you mean "inputs"?`],
  ])("%s is refused", async (json, message) => {
    const preparer = await tensor.open({ maxBytes: 1000 });
    const looked = preparer.inspect({ bytes: Buffer.from(json), type: "application/json" }, scope);
    await expect(looked).rejects.toMatchObject({
      type: "BAD_REQUEST",
      message: expect.stringContaining(message),
    });
  });
});

describe("a model's tensors as its answer", () => {
  test("are nested as their shapes say, those of the item, and in memory of their own", () => {
    const batch = {
      y: { dtype: "float32", shape: [2, 2, 2], data: Float32Array.of(1, 2, 3, 4, 0.1, 6, 7, 8) },
      n: { dtype: "int64", shape: [2], data: BigInt64Array.of(5n, 2n ** 60n) },
      s: { dtype: "string", shape: [2, 1], data: ["a", "b"] },
    } as const;
    const part = { name: "tensor" } as const;
    const output = tensorTask.interpret(batch, 1, part);
    batch.y.data.fill(0);
    expect(tensorTask.answer(output, null, {})).toEqual({
      outputs: {
        y: [
          [0.1, 6],
          [7, 8],
        ],
        n: String(2n ** 60n),
        s: ["b"],
      },
    });
  });
});
