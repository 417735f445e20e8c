import type { Engine, EngineSpec, Signature } from "../lib/engines/engine.ts";
import { type Tensors, zeros } from "../lib/engines/tensors.ts";
import { EngineCrashedError } from "../lib/errors.ts";

/** A run of a {@link FakeEngine} that has begun and that the test ends. */
export interface FakeRun {
  readonly engine: FakeEngine;
  readonly count: number;
  /** Whether it has not ended yet. */
  readonly going: boolean;
  /** Ends it well. */
  finish(): void;
  fail(error: Error): void;
}

/**
 * An engine whose loads and runs end when the test says so. Its warm-up ends by itself; every output is zeros.
 */
export class FakeEngine implements Engine {
  readonly spec: EngineSpec;
  readonly #gone = Promise.withResolvers<string>();
  readonly #load = Promise.withResolvers<void>();
  readonly #device: FakeDevice;
  #warmUps: number;
  #current: PromiseWithResolvers<Tensors> | undefined;
  closed = false;
  /** Dead or closed. */
  over = false;

  constructor(spec: EngineSpec, device: FakeDevice) {
    this.spec = spec;
    this.#device = device;
    this.#warmUps = new Set([1, spec.maxBatch]).size;
    if (device.loadsAtOnce) this.#load.resolve();
  }

  get gone(): Promise<string> {
    return this.#gone.promise;
  }

  async load(signal: AbortSignal): Promise<Signature> {
    signal.addEventListener("abort", () => this.die((signal.reason as Error).message));
    await this.#load.promise;
    return { inputs: this.spec.inputs, outputs: this.spec.outputs };
  }

  finishLoad(): void {
    this.#load.resolve();
  }

  async run(_: Tensors, count: number): Promise<Tensors> {
    const outputs = Object.fromEntries(
      this.spec.outputs.map(({ name, dtype, shape }) => [
        name,
        zeros(dtype, [count, ...shape.map((n) => n ?? 1)]),
      ]),
    );
    if (this.#warmUps-- > 0) return outputs;
    const run = Promise.withResolvers<Tensors>();
    this.#current = run;
    const isGoing = () => this.#current === run;
    this.#device.runs.push({
      engine: this,
      count,
      get going() {
        return isGoing();
      },
      finish: () => run.resolve(outputs),
      fail: (error) => run.reject(error),
    });
    try {
      return await run.promise;
    } finally {
      this.#current = undefined;
    }
  }

  /** As if its process were gone. */
  die(reason = "it was told to", error = new EngineCrashedError("fake", reason)): void {
    this.over = true;
    this.#current?.reject(error);
    this.#load.promise.catch(() => {});
    this.#load.reject(error);
    this.#gone.resolve(reason);
  }

  async close(): Promise<void> {
    this.closed = true;
    await this.#current?.promise.catch(() => {});
    this.over = true;
    this.#gone.resolve("it is closed");
  }
}

/** All fake engines of a test. */
export class FakeDevice {
  /** In the order they were made. */
  readonly engines: FakeEngine[] = [];
  /** That have begun, warm-up left out. */
  readonly runs: FakeRun[] = [];
  /** Whether an engine that is made from now on loads by itself. */
  loadsAtOnce = true;

  readonly create = (spec: EngineSpec): FakeEngine => {
    const engine = new FakeEngine(spec, this);
    this.engines.push(engine);
    return engine;
  };
}
