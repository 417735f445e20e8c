import { resolve } from "node:path";
import { EnginePool } from "../lib/engines/pool.ts";
import { ImageModel } from "../lib/kinds/image/model.ts";
import { latestVersion } from "../lib/models/manifest.ts";
import { median } from "../testkit/percentile.ts";

/** How the engine is driven. */
export interface EngineSetting {
  /** Items in a batch. */
  readonly size: number;
  /** Batches at once, which share the threads. */
  readonly atOnce: number;
}

/** The engine by itself: batches of random pixels back to back. */
export class EngineMeter {
  readonly #engine: EnginePool;
  readonly #itemBytes: number;

  constructor(modelDir: string, group: string, threads: number, instances: number) {
    const model = new ImageModel(latestVersion(resolve(modelDir)), { group, threshold: 0.5 });
    const { width, height } = model.description.input;
    this.#itemBytes = width * height * 3;
    this.#engine = new EnginePool({
      name: "bench",
      spec: (threads) => model.engineSpec(threads),
      threads,
      instances,
    });
  }

  load(): Promise<void> {
    return this.#engine.load();
  }

  dispose(): Promise<void> {
    return this.#engine.dispose();
  }

  /** @returns items a second, and the median milliseconds of a batch */
  async measure(
    { size, atOnce }: EngineSetting,
    seconds: number,
  ): Promise<{ readonly perSecond: number; readonly medianMs: number }> {
    const pixels = new Uint8Array(size * this.#itemBytes);
    for (let at = 0; at < pixels.length; at += 65_536)
      crypto.getRandomValues(pixels.subarray(at, at + 65_536));
    const times: number[] = [];
    const begin = performance.now();
    const end = begin + seconds * 1e3;
    const caller = async () => {
      for (let began = performance.now(); began < end; began = performance.now()) {
        await this.#engine.run(pixels.slice(), size);
        times.push(performance.now() - began);
      }
    };
    await Promise.all(Array.from({ length: atOnce }, caller));
    return {
      perSecond: (size * times.length * 1e3) / (performance.now() - begin),
      medianMs: median(times),
    };
  }
}
