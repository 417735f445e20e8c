import type { EngineSpec } from "./engine.ts";
import { EngineHost, type EngineHostOptions } from "./host.ts";

export interface EnginePoolOptions extends Pick<EngineHostOptions, "name" | "onRestart"> {
  /** The engine to load with so many threads for a run. */
  readonly spec: (threads: number) => EngineSpec;
  /** Threads that all runs at one time share, from 1. */
  readonly threads: number;
  /** Batches computed at once, from 1; never more than threads. */
  readonly instances: number;
}

interface Engine {
  readonly host: EngineHost;
  running: number;
}

/**
 * The engines of one model. A batch that is alone has all threads: it is answered soonest. Batches that run at the
 * same time have an engine each, with its share of the threads: no thread then waits for another at the end of every
 * layer, which is worst when they share their cores with other work.
 *
 * Every engine has the weights in memory for itself: `instances + 1` times, unless `instances` is 1.
 */
export class EnginePool {
  /** With all threads. */
  readonly #whole: Engine;
  /** With a share of the threads each. */
  readonly #shares: readonly Engine[];

  constructor({ name, spec, threads, instances, onRestart }: EnginePoolOptions) {
    const engine = (threads: number): Engine => ({
      host: new EngineHost({ name, spec: spec(threads), ...(onRestart ? { onRestart } : {}) }),
      running: 0,
    });
    const shares = Math.min(instances, threads);
    this.#whole = engine(threads);
    this.#shares =
      shares > 1 ? Array.from({ length: shares }, () => engine(Math.floor(threads / shares))) : [];
  }

  /**
   * Resolves when every engine is loaded and warm.
   *
   * @throws EngineCrashedError if one cannot be loaded; none is left then
   */
  async load(): Promise<void> {
    try {
      await Promise.all(this.#engines.map(({ host }) => host.load()));
    } catch (error) {
      await this.dispose();
      throw error;
    }
  }

  /** One batch; see {@link EngineHost.run}. */
  async run(pixels: Uint8Array<ArrayBuffer>, count: number): Promise<Float32Array> {
    const engine = this.#next();
    engine.running++;
    try {
      return await engine.host.run(pixels, count);
    } finally {
      engine.running--;
    }
  }

  /** Ends all engines; what they compute is lost. */
  async dispose(): Promise<void> {
    await Promise.all(this.#engines.map(({ host }) => host.dispose()));
  }

  get #engines(): readonly Engine[] {
    return [this.#whole, ...this.#shares];
  }

  /** The whole one if nothing runs, else the share with least to do; none that is down while another is up. */
  #next(): Engine {
    const alone = this.#engines.every(({ running }) => running === 0);
    const rank = (engine: Engine) => {
      if (!engine.host.ready) return Number.POSITIVE_INFINITY;
      return engine === this.#whole && !alone ? Number.MAX_VALUE : engine.running;
    };
    return this.#engines.reduce((best, engine) => (rank(engine) < rank(best) ? engine : best));
  }
}
