import { resolve } from "node:path";
import type { Engine } from "../lib/engines/engine.ts";
import { createEngine } from "../lib/engines/runtimes.ts";
import { zeros } from "../lib/engines/tensors.ts";
import { latestVersion } from "../lib/models/manifest.ts";
import { Model } from "../lib/models/model.ts";
import { median } from "../testkit/percentile.ts";

/** How the engine is driven. */
export interface EngineSetting {
  /** Items in a batch. */
  readonly size: number;
  /** Batches at once, which share the threads. */
  readonly atOnce: number;
}

/** The largest batch measured. */
const MAX_BATCH = 64;
const LOAD_TIMEOUT_MS = 60_000;

/**
 * Engines by themselves: batches of random pixels back to back. Batches at once have an engine each, with an even share
 * of the threads: the most that the cores give.
 */
export class EngineMeter {
  readonly #model: Model;
  readonly #threads: number;
  /** By how many compute at once. */
  readonly #engines = new Map<number, Promise<readonly Engine[]>>();

  constructor(modelDir: string, threads: number) {
    this.#model = new Model(latestVersion(resolve(modelDir)));
    this.#threads = threads;
  }

  async close(): Promise<void> {
    const engines = await Promise.all(this.#engines.values());
    await Promise.all(engines.flat().map((engine) => engine.close()));
  }

  /** @returns items a second, and the median milliseconds of a batch */
  async measure(
    { size, atOnce }: EngineSetting,
    seconds: number,
  ): Promise<{ readonly perSecond: number; readonly medianMs: number }> {
    const engines = await this.#enginesFor(atOnce);
    const batch = this.#randomBatch(size);
    const times: number[] = [];
    const begin = performance.now();
    const end = begin + seconds * 1e3;
    const drive = async (engine: Engine) => {
      for (let began = performance.now(); began < end; began = performance.now()) {
        await engine.run(batch, size, { deadline: Number.POSITIVE_INFINITY });
        times.push(performance.now() - began);
      }
    };
    await Promise.all(engines.map(drive));
    return {
      perSecond: (size * times.length * 1e3) / (performance.now() - begin),
      medianMs: median(times),
    };
  }

  #enginesFor(atOnce: number): Promise<readonly Engine[]> {
    let engines = this.#engines.get(atOnce);
    if (!engines) {
      engines = Promise.all(Array.from({ length: atOnce }, () => this.#load(atOnce)));
      this.#engines.set(atOnce, engines);
    }
    return engines;
  }

  async #load(atOnce: number): Promise<Engine> {
    const threads = Math.max(1, Math.floor(this.#threads / atOnce));
    const engine = createEngine({ ...this.#model.engineSpec(MAX_BATCH), threads }, { name: "bench" });
    await engine.load(AbortSignal.timeout(LOAD_TIMEOUT_MS));
    await engine.run(this.#randomBatch(1), 1, { deadline: Number.POSITIVE_INFINITY });
    return engine;
  }

  #randomBatch(size: number) {
    return Object.fromEntries(
      this.#model.engineSpec(MAX_BATCH).inputs.map(({ name, dtype, shape }) => {
        const tensor = zeros(dtype, [size, ...shape.map((length) => length ?? 1)]);
        const bytes = tensor.data as Uint8Array;
        for (let at = 0; at < bytes.length; at += 65_536)
          crypto.getRandomValues(bytes.subarray(at, at + 65_536));
        return [name, tensor];
      }),
    );
  }
}
