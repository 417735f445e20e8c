import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Engine } from "../../lib/engines/engine.ts";
import { createEngine } from "../../lib/engines/runtimes.ts";
import type { Tensors } from "../../lib/engines/tensors.ts";
import type { ImageInput } from "../../lib/kinds/image/input.ts";
import { ImagePipeline } from "../../lib/kinds/image/pipeline.ts";
import { difference, Model } from "../../lib/models/model.ts";
import { writeTfjs } from "../../lib/models/to-tfjs.ts";
import { model, node, tensor, value } from "../../lib/onnx/build.ts";
import { TYPE } from "../../lib/onnx/proto.ts";
import { randomBy } from "../../lib/onnx/ranges.ts";
import { toTfjs } from "../../lib/onnx/tfjs.ts";
import { softmax } from "../../lib/tasks/classification.ts";
import { tfjsRuntimes } from "../../testkit/tensorflow.ts";

const PHOTOS = "../shared/data/photos";
const NEVER = { deadline: Number.POSITIVE_INFINITY };
const folder = mkdtempSync(join(tmpdir(), "tfjs-"));
const engines: Engine[] = [];
afterAll(async () => {
  await Promise.all(engines.map((engine) => engine.close()));
  rmSync(folder, { recursive: true });
});

async function loaded(spec: Parameters<typeof createEngine>[0]): Promise<Engine> {
  const engine = createEngine(spec, { name: "pets" });
  engines.push(engine);
  await engine.load(AbortSignal.timeout(60_000));
  return engine;
}

/** Of noise, and of photos where there are some. */
async function images(input: ImageInput): Promise<Tensors[]> {
  const shape = [1, input.height, input.width, 3];
  const random = randomBy(3);
  const noise = Array.from({ length: 4 }, () =>
    Uint8Array.from({ length: input.height * input.width * 3 }, () => 256 * random()),
  );
  const files = existsSync(PHOTOS) ? readdirSync(PHOTOS).slice(0, 12) : [];
  const pipeline = new ImagePipeline();
  const photos = await Promise.all(
    files.map((file) => pipeline.prepare(readFileSync(join(PHOTOS, file)), input)),
  );
  return [...noise, ...photos].map((data) => ({ pixels: { dtype: "uint8", shape, data } }) as Tensors);
}

describe("the shipped ResNet as a graph model of TensorFlow.js", () => {
  const to = join(folder, "pets-tfjs/1");
  let onnx: Engine;
  let spec: ReturnType<Model["engineSpec"]>;

  beforeAll(async () => {
    writeFileSync(join(folder, "float32.onnx"), await writeTfjs("models/pets-resnet/1", to));
    spec = new Model(to).engineSpec(8);
    onnx = await loaded({ ...spec, runtime: "onnx", dir: folder, files: ["float32.onnx"], threads: 1 });
  }, 90_000);

  test.each(tfjsRuntimes())(
    "gives ONNX Runtime's answers in %s, within a thousandth",
    async (runtime) => {
      const engine = await loaded({ ...spec, runtime, threads: 1 });
      const own = new Model(to);
      for (const example of own.examples()) {
        expect(difference(example, await engine.run(own.collate([example.item]), 1, NEVER))).toBeUndefined();
      }
      const probabilities = async (each: Engine, image: Tensors) =>
        softmax((await each.run(image, 1, NEVER))["logits"]?.data as Float32Array);
      let largest = 0;
      for (const image of await images(own.input as ImageInput)) {
        const [a, b] = [await probabilities(onnx, image), await probabilities(engine, image)];
        for (const [i, p] of a.entries()) largest = Math.max(largest, Math.abs(p - (b[i] ?? Number.NaN)));
      }
      expect(largest).toBeLessThanOrEqual(1e-3);
    },
    90_000,
  );

  test("names the same labels as the int8 model that it was made of", async () => {
    const int8 = new Model("models/pets-resnet/1");
    const shipped = await loaded({ ...int8.engineSpec(1), threads: 1 });
    const first = async (engine: Engine, image: Tensors) => {
      const logits = (await engine.run(image, 1, NEVER))["logits"]?.data as Float32Array;
      return logits.indexOf(Math.max(...logits));
    };
    const all = await images(int8.input as ImageInput);
    let same = 0;
    for (const each of all) if ((await first(onnx, each)) === (await first(shipped, each))) same++;
    expect(same / all.length).toBeGreaterThanOrEqual(0.85);
  }, 60_000);
});

test("what has no counterpart is named", () => {
  const graph = model({
    name: "test",
    node: [node("Einsum", ["x"], "y")],
    initializer: [tensor("w", Float32Array.of(1))],
    input: [value("x", TYPE.float, ["n", 2])],
    output: [value("y", TYPE.float, ["n", 2])],
  });
  expect(() => toTfjs(graph)).toThrow('There is no operator of TensorFlow.js for Einsum "y"');
});
