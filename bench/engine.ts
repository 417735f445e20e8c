import { resolve } from "node:path";
import { EngineHost } from "../lib/engines/host.ts";
import { ImageModel } from "../lib/image-model.ts";
import { latestVersion } from "../lib/manifest.ts";
import { median } from "../test/helpers/percentile.ts";

/** An engine by itself: batches of random pixels back to back. */
export class EngineMeter {
  readonly #engine: EngineHost;
  readonly #itemBytes: number;

  constructor(modelDir: string, group: string, threads: number) {
    const model = new ImageModel(latestVersion(resolve(modelDir)), { group, threshold: 0.5 });
    const { width, height } = model.description.input;
    this.#itemBytes = width * height * 3;
    this.#engine = new EngineHost({ name: "bench", spec: model.engineSpec(threads) });
  }

  load(): Promise<void> {
    return this.#engine.load();
  }

  dispose(): Promise<void> {
    return this.#engine.dispose();
  }

  /** @returns items a second, and the median milliseconds of a batch */
  async measure(
    size: number,
    seconds: number,
  ): Promise<{ readonly perSecond: number; readonly medianMs: number }> {
    const times: number[] = [];
    for (const end = performance.now() + seconds * 1e3; performance.now() < end; ) {
      const batch = new Uint8Array(size * this.#itemBytes);
      for (let at = 0; at < batch.length; at += 65_536)
        crypto.getRandomValues(batch.subarray(at, at + 65_536));
      const began = performance.now();
      await this.#engine.run(batch, size);
      times.push(performance.now() - began);
    }
    const total = times.reduce((a, b) => a + b, 0);
    return { perSecond: (size * times.length * 1e3) / total, medianMs: median(times) };
  }
}
