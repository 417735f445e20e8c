import { Batcher } from "../batching/batcher.ts";
import type { BatcherOptions, BatchReport, SettledItem, SubmitOptions } from "../batching/options.ts";
import { ModelUnavailableError } from "../errors.ts";
import type { ModelId } from "../models/identity.ts";
import { type Clock, systemClock } from "../request/clock.ts";
import type { Cores } from "./cores.ts";
import type { Engine, EngineSpec } from "./engine.ts";
import { EnginePool, type EnginePoolOptions, type EngineSlot, GIVEN_UP, type PoolState } from "./pool.ts";
import { stack, type Tensors } from "./tensors.ts";

export type BatchingOptions = Pick<
  BatcherOptions<Tensors, Tensors>,
  "maxBatchSize" | "maxQueueSize" | "maxQueueDelayMs" | "latencyTargetMs"
>;

export interface NetworkOptions {
  readonly id: ModelId;
  readonly spec: Omit<EngineSpec, "threads">;
  readonly create: (spec: EngineSpec) => Engine;
  /** Threads of one batch that is alone, from 1. */
  readonly threads: number;
  /** Engines, each with the weights in memory. */
  readonly instances: number;
  readonly cores: Cores;
  /** See {@link EnginePoolOptions}. */
  readonly elsewhere?: boolean;
  readonly prove?: EnginePoolOptions["prove"];
  /** Items as one batch for the engines. @default stack */
  readonly collate?: (items: readonly Tensors[]) => Tensors;
  /** `maxBatchSize` is at most what the model can compute. */
  readonly batching: BatchingOptions;
  /** @default systemClock */
  readonly clock?: Clock;
  readonly onBatch?: (report: BatchReport) => void;
  readonly onDeath?: (reason: string) => void;
  readonly onState?: (state: PoolState) => void;
}

/** One version of a model, loaded: its engines, and the one queue before them. */
export class Network {
  readonly id: ModelId;
  readonly #pool: EnginePool;
  readonly #batcher: Batcher<Tensors, Tensors, EngineSlot>;
  readonly #watchers = new Set<() => void>();

  constructor(options: NetworkOptions) {
    const { id, spec, batching, collate = stack, clock = systemClock } = options;
    const { onBatch = () => {}, onState = () => {} } = options;
    const { name } = id;
    this.id = id;
    this.#pool = new EnginePool({
      ...options,
      name,
      onState: (state) => {
        // What waits would wait in vain: another node may have an engine that works.
        if (GIVEN_UP.has(state)) this.#batcher.reject(new ModelUnavailableError(name));
        onState(state);
        for (const watcher of this.#watchers) watcher();
      },
    });
    this.#batcher = new Batcher<Tensors, Tensors, EngineSlot>({
      ...batching,
      maxBatchSize: Math.min(batching.maxBatchSize ?? spec.maxBatch, spec.maxBatch),
      name,
      slots: this.#pool,
      clock,
      run: (items, slot, scope) => slot.run(collate(items), items.length, scope),
      onBatch,
    });
  }

  get state(): PoolState {
    return this.#pool.state;
  }

  /** Whether work is not refused at once. */
  get available(): boolean {
    return !GIVEN_UP.has(this.state);
  }

  /** @param watcher told when {@link state} has changed @returns ends it */
  watch(watcher: () => void): () => void {
    this.#watchers.add(watcher);
    return () => void this.#watchers.delete(watcher);
  }

  /** See {@link EnginePool.runtime}. */
  get runtime(): string | undefined {
    return this.#pool.runtime;
  }

  /** See {@link Batcher.stats}. */
  get stats(): Batcher<Tensors, Tensors>["stats"] {
    return this.#batcher.stats;
  }

  /** Resolves when all engines are loaded and warm. @throws EngineCrashedError */
  load(): Promise<void> {
    return this.#pool.load();
  }

  /**
   * Computes items, each a batch of one; see {@link Batcher.submit}.
   *
   * @returns for each its outputs, as a batch of one
   * @throws MODEL_UNAVAILABLE if no engine can be had
   */
  async submit(items: readonly Tensors[], options: SubmitOptions): Promise<SettledItem<Tensors>[]> {
    if (!this.available) throw new ModelUnavailableError(this.id.name);
    return this.#batcher.submit(items, options);
  }

  /** Refuses new work, finishes what it has, and then lets go of the engines. */
  async close(): Promise<void> {
    await this.#batcher.drain();
    await this.#pool.close();
  }
}
