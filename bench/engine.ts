import { resolve } from "node:path";
import { EngineHost } from "../lib/engines/host.ts";
import { ImageModel } from "../lib/image-model.ts";
import { latestVersion } from "../lib/manifest.ts";

export interface EngineRate {
  /** Items a second at the best batch size. */
  readonly perSecond: number;
  readonly batchSize: number;
  /** Median of one item alone, milliseconds. */
  readonly singleMs: number;
}

/** What the engine alone can do: batches of random pixels back to back, the best of several sizes. */
export async function measureEngine(
  modelDir: string,
  group: string,
  threads: number,
  seconds: number,
): Promise<EngineRate> {
  const model = new ImageModel(latestVersion(resolve(modelDir)), { group, threshold: 0.5 });
  const { width, height } = model.description.input;
  const engine = new EngineHost({ name: "bench", spec: model.engineSpec(threads) });
  await engine.load();
  const sizes = [1, 2, 4, 8];
  const rates: { size: number; perSecond: number; median: number }[] = [];
  for (const size of sizes) {
    const times: number[] = [];
    const end = performance.now() + (seconds * 1e3) / sizes.length;
    while (performance.now() < end) {
      const pixels = crypto.getRandomValues(new Uint8Array(Math.min(65_536, size * width * height * 3)));
      const batch = new Uint8Array(size * width * height * 3);
      for (let at = 0; at < batch.length; at += pixels.length)
        batch.set(pixels.subarray(0, batch.length - at), at);
      const began = performance.now();
      await engine.run(batch, size);
      times.push(performance.now() - began);
    }
    const sorted = times.sort((a, b) => a - b);
    const total = times.reduce((a, b) => a + b, 0);
    rates.push({
      size,
      perSecond: (size * times.length * 1e3) / total,
      median: sorted[sorted.length >> 1] ?? 0,
    });
  }
  await engine.dispose();
  const best = rates.reduce((a, b) => (b.perSecond > a.perSecond ? b : a));
  return { perSecond: best.perSecond, batchSize: best.size, singleMs: rates[0]?.median ?? 0 };
}
