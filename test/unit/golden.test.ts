import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import sharp from "sharp";
import { createEngine } from "../../lib/engines/runtimes.ts";
import type { ImageInput } from "../../lib/kinds/image/input.ts";
import { ImagePipeline } from "../../lib/kinds/image/pipeline.ts";
import { latestVersion } from "../../lib/models/manifest.ts";
import { Model } from "../../lib/models/model.ts";

/** Training's side of the bargain, written by `training/golden.py` and `training/golden.ts`. */
const golden = (name: string) => readFileSync(resolve("test/fixtures/golden", name));
const logits = (name: string) => JSON.parse(golden(name).toString()) as number[];

const model = new Model(latestVersion("models/pets-resnet"));
const input = model.input as ImageInput;

/** Largest absolute difference. */
const distance = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Math.max(...Array.from(a, (x, i) => Math.abs(x - (b[i] ?? Number.NaN))));

async function goldenPixels(): Promise<Uint8Array<ArrayBuffer>> {
  // A lossless image of exactly the model's size: sharp only unpacks it.
  return Uint8Array.from(await sharp(golden("pixels.png")).raw().toBuffer());
}

async function shippedLogits(pixels: Uint8Array<ArrayBuffer>): Promise<Float32Array> {
  const spec = { ...model.engineSpec(1), threads: 1 };
  const engine = createEngine(spec, { name: "pets-resnet" });
  try {
    await engine.load(AbortSignal.timeout(30_000));
    const shape = [1, ...(spec.inputs[0]?.shape ?? [])].map(Number);
    const batch = { pixels: { dtype: "uint8" as const, shape, data: pixels } };
    const { logits } = await engine.run(batch, 1, { deadline: Number.POSITIVE_INFINITY });
    return logits?.data as Float32Array;
  } finally {
    await engine.close();
  }
}

describe("the golden image", () => {
  test("reaches the model as the pixels that training would have made of it", async () => {
    const expected = await goldenPixels();
    const actual = await new ImagePipeline().prepare(golden("image.png"), input);
    expect(actual).toHaveLength(expected.length);
    const errors = Array.from(actual, (value, i) => Math.abs(value - (expected[i] ?? Number.NaN)));
    // The two libraries round intermediate values differently; another kernel is off by dozens at edges.
    expect(Math.max(...errors)).toBeLessThanOrEqual(2);
    expect(errors.reduce((a, b) => a + b, 0) / errors.length).toBeLessThan(0.1);
  });

  test("gets the shipped model's logits from its golden pixels", async () => {
    const actual = await shippedLogits(await goldenPixels());
    expect(distance(actual, logits("int8.json"))).toBeLessThan(0.05);
    expect(distance(actual, logits("float32.json"))).toBeLessThan(0.15);
  });
});
