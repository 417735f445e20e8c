import type { Slot, Slots } from "../batching/slots.ts";
import type { Clock } from "../request/clock.ts";
import { systemClock } from "../request/clock.ts";
import type { Cores, Place } from "./cores.ts";
import type { Engine, EngineSpec, RunScope } from "./engine.ts";
import { Instance, type InstanceOptions } from "./instance.ts";
import type { Tensors } from "./tensors.ts";

export interface EnginePoolOptions {
  /** The model's name, for errors and logs. */
  readonly name: string;
  /** What the engines load; the pool says with how many threads. */
  readonly spec: Omit<EngineSpec, "threads">;
  readonly create: (spec: EngineSpec) => Engine;
  /** Threads of one batch that is alone, from 1. */
  readonly threads: number;
  /** Engines, each with the weights in memory; at most one for each thread. */
  readonly instances: number;
  /** Shared by all pools of the process. */
  readonly cores: Cores;
  /** What computes is elsewhere: it may be away at the start, and for as long as it likes. */
  readonly elsewhere?: boolean;
  /** See {@link InstanceOptions.prove}. */
  readonly prove?: InstanceOptions["prove"];
  /** @default systemClock */
  readonly clock?: Clock;
  /** Longest time to load and warm up one engine, milliseconds. @default 60000 */
  readonly loadTimeoutMs?: number;
  /** Told when an engine died, with all that is known of why. */
  readonly onDeath?: (reason: string) => void;
  /** Told when {@link EnginePool.state} changes. */
  readonly onState?: (state: PoolState) => void;
}

/**
 * - `loading`: not all engines were ready yet
 * - `up`: one or more compute or could
 * - `down`: none does, for the moment
 * - `failing`: none does, and the next ones died like the first
 * - `lost`: it has gone on like that for so long that only a new process could mend it
 * - `closed`
 */
export type PoolState = "loading" | "up" | "down" | "failing" | "lost" | "closed";

/** In these states work is refused at once, and the node is not ready. */
export const GIVEN_UP: ReadonlySet<PoolState> = new Set(["failing", "lost"]);

/** Deaths of every engine, without an answer in between, that make the state: by then it is no longer just bad luck. */
const FAILING_DEATHS = 3;
/** With the rests in between this takes about twelve seconds and ten loads. */
const LOST_DEATHS = 10;

/** Room for one batch, in one engine. */
export interface EngineSlot extends Slot {
  /** See {@link Instance.run}. */
  run(batch: Tensors, count: number, scope: RunScope): Promise<(Tensors | Error)[]>;
}

/** Threads of each engine: the first has all, for a batch that is alone; the others what is theirs if all compute. */
export function divideThreads(threads: number, instances: number): number[] {
  const engines = Math.min(instances, threads);
  const share = Math.ceil(threads / engines);
  return Array.from({ length: engines }, (_, i) => (i === 0 ? threads : share));
}

/**
 * The engines of one model. A batch that is alone in the process has the engine with all threads: it is answered
 * soonest. One that comes while others compute has an engine with a share of them if it can: threads that wait for
 * each other at the end of every layer do so longest where they share their cores.
 */
export class EnginePool implements Slots<EngineSlot> {
  readonly #instances: readonly Instance[];
  readonly #cores: Cores;
  readonly #elsewhere: boolean;
  readonly #onState: (state: PoolState) => void;
  /** Those whose slot is taken, whether it computes yet or not. */
  readonly #taken = new Set<Instance>();
  #state: PoolState = "loading";
  onFree = () => {};
  readonly #wake = () => this.onFree();

  constructor(options: EnginePoolOptions) {
    const { name, spec, create, threads, instances, cores, onState = () => {}, onDeath = () => {} } = options;
    const { clock = systemClock, loadTimeoutMs = 60_000, elsewhere = false, prove } = options;
    this.#cores = cores;
    this.#elsewhere = elsewhere;
    this.#onState = onState;
    this.#instances = divideThreads(threads, instances).map(
      (threads) =>
        new Instance({
          name,
          spec: { ...spec, threads },
          create,
          clock,
          loadTimeoutMs,
          patient: elsewhere,
          ...(prove ? { prove } : {}),
          onState: () => this.#changed(),
          onDeath,
        }),
    );
  }

  get state(): PoolState {
    return this.#state;
  }

  /** What computes, for people: once it is loaded, and if the runtime says so. */
  get runtime(): string | undefined {
    return this.#instances.find(({ runtime }) => runtime)?.runtime;
  }

  get size(): number {
    return Math.min(this.#instances.length, this.#cores.size);
  }

  /**
   * Resolves when every engine is loaded and warm.
   *
   * @throws EngineCrashedError if one cannot be; none is left then
   */
  async load(): Promise<void> {
    try {
      await Promise.all(this.#instances.map((instance) => instance.load()));
      this.#state = "down";
      this.#changed();
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  take(): EngineSlot | undefined {
    const free = this.#instances.filter((each) => each.state === "ready" && !this.#taken.has(each));
    if (free.length === 0) return undefined;
    const place = this.#cores.take(this.#wake);
    return place && this.#slot(pick(free, place), place);
  }

  /** Ends all engines; each finishes its batch. */
  async close(): Promise<void> {
    this.#become("closed");
    await Promise.all(this.#instances.map((instance) => instance.close()));
  }

  #slot(instance: Instance, place: Place): EngineSlot {
    this.#taken.add(instance);
    return {
      kind: `${instance.threads} threads`,
      run: (batch, count, scope) => instance.run(batch, count, scope),
      release: () => {
        this.#taken.delete(instance);
        place.release();
      },
    };
  }

  #changed(): void {
    if (this.#state === "loading" || this.#state === "closed") return;
    const states = this.#instances.map(({ state }) => state);
    if (states.some((state) => state === "ready" || state === "busy")) this.#become("up");
    else this.#become(this.#stateWithout());
    if (states.includes("ready")) this.onFree();
  }

  /** When no instance computes. A new process would not bring back what is elsewhere. */
  #stateWithout(): PoolState {
    const state = stateAfter(Math.min(...this.#instances.map(({ deaths }) => deaths)));
    return this.#elsewhere && state === "lost" ? "failing" : state;
  }

  #become(state: PoolState): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#onState(state);
  }
}

/** @param deaths of the engine that died least often */
function stateAfter(deaths: number): PoolState {
  if (deaths >= LOST_DEATHS) return "lost";
  return deaths >= FAILING_DEATHS ? "failing" : "down";
}

/** The most threads for a batch that is alone, the fewest beside others. */
function pick(free: readonly Instance[], { alone }: Place): Instance {
  return free.reduce((best, instance) =>
    alone === instance.threads > best.threads && instance.threads !== best.threads ? instance : best,
  );
}
