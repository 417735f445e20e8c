import { EngineCrashedError, errorCode, PredictionFailedError, wholeReason } from "../errors.ts";
import type { Clock } from "../request/clock.ts";
import { StateMachine } from "../state-machine.ts";
import type { Engine, EngineSpec, RunScope } from "./engine.ts";
import { blankBatch, contradictions, outputFault, settledItems } from "./signature.ts";
import type { Tensors } from "./tensors.ts";

export interface InstanceOptions {
  /** The model's name, for errors. */
  readonly name: string;
  readonly spec: EngineSpec;
  /** Makes the engine, and each that replaces it. */
  readonly create: (spec: EngineSpec) => Engine;
  readonly clock: Clock;
  /** Longest time to load and warm up, milliseconds. */
  readonly loadTimeoutMs: number;
  /** What never worked is tried again as well: what computes is elsewhere, and may be away when this starts. */
  readonly patient?: boolean;
  /** Tries the model after each load and warm-up. @returns what is wrong with it; undefined: nothing */
  readonly prove?: (run: (item: Tensors) => Promise<Tensors | Error>) => Promise<string | undefined>;
  /** Told of every change of {@link Instance.state}. */
  readonly onState: () => void;
  /** Told when the engine died, with all that is known of why: for the log, it may hold paths of the server. */
  readonly onDeath: (reason: string) => void;
}

export type InstanceState = "new" | "loading" | "warming" | "ready" | "busy" | "resting" | "closed";

const MOVES: Readonly<Record<InstanceState, readonly InstanceState[]>> = {
  new: ["loading", "closed"],
  loading: ["warming", "resting", "closed"],
  warming: ["ready", "resting", "closed"],
  ready: ["busy", "resting", "closed"],
  busy: ["ready", "resting", "closed"],
  resting: ["loading", "closed"],
  closed: [],
};

/** Rest before the next engine, after 1, 2, … deaths without an answer in between. Doubles up to 5 s. */
const restMs = (deaths: number) => (deaths <= 1 ? 0 : Math.min(5_000, 50 * 2 ** (deaths - 2)));

/**
 * One place in which batches are computed: an engine, and the next one when it dies.
 *
 *     new ─► loading ─► warming ─► ready ⇄ busy
 *               ▲  │       │         │       │      (its engine dies)
 *               │  └───────┴────┬────┴───────┘
 *               └─ resting ◄────┘
 *
 * and from every state *closed*, which is final. It is *ready* only when its engine has proved itself: what it takes
 * and gives is what the manifest says, and batches of one and of the largest size come out whole and finite.
 */
export class Instance {
  readonly #options: InstanceOptions;
  readonly #state: StateMachine<InstanceState>;
  #engine: Engine | undefined;
  #load: { readonly controller: AbortController; readonly settled: Promise<unknown> } | undefined;
  #rest: unknown;
  #deaths = 0;
  #runtime: string | undefined;
  /** Whether one of its engines was ready before: what never worked is not tried again. */
  #proven = false;

  constructor(options: InstanceOptions) {
    this.#options = options;
    this.#state = new StateMachine(`an engine of ${options.name}`, MOVES, "new");
  }

  get state(): InstanceState {
    return this.#state.state;
  }

  /** What computes, as it was reported last; see {@link Signature.engine}. */
  get runtime(): string | undefined {
    return this.#runtime;
  }

  get threads(): number {
    return this.#options.spec.threads;
  }

  /** Deaths since a batch was computed last. */
  get deaths(): number {
    return this.#deaths;
  }

  /**
   * Loads the first engine. If that fails there is no second: the instance is closed; a patient one goes on trying.
   *
   * @throws EngineCrashedError
   */
  async load(): Promise<void> {
    if (this.#options.patient) {
      this.#proven = true;
      return this.#start().catch(() => {});
    }
    try {
      await this.#start();
      this.#proven = true;
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  /**
   * Computes one batch; only when it is ready.
   *
   * @returns each item's outputs; an Error for an item whose numbers are not finite
   * @throws EngineCrashedError if the engine died under it
   * @throws PredictionFailedError if the runtime refused the batch
   */
  async run(batch: Tensors, count: number, scope: RunScope): Promise<(Tensors | Error)[]> {
    const { name, spec } = this.#options;
    const engine = this.#engine;
    this.#move("busy");
    if (!engine) throw new EngineCrashedError(name, "it is gone");
    try {
      const outputs = await engine.run(batch, count, scope);
      const fault = outputFault(spec, outputs, count);
      if (fault) throw new PredictionFailedError(name, fault);
      this.#deaths = 0;
      return settledItems(outputs, count);
    } catch (error) {
      if (errorCode(error) === "ENGINE_CRASHED") this.#lost(engine, wholeReason(error as Error));
      throw error;
    } finally {
      if (engine === this.#engine && this.#state.is("busy")) this.#move("ready");
    }
  }

  /** Ends the engine, which finishes its batch; a load is given up. */
  async close(): Promise<void> {
    if (!this.#state.is("closed")) this.#move("closed");
    this.#options.clock.clearTimeout(this.#rest);
    this.#load?.controller.abort(new Error("it is closed"));
    await this.#load?.settled;
    await this.#engine?.close();
  }

  #move(to: InstanceState): void {
    this.#state.move(to);
    this.#options.onState();
  }

  async #start(): Promise<void> {
    const { clock, loadTimeoutMs } = this.#options;
    const controller = new AbortController();
    const giveUp = () => controller.abort(new Error(`loading took longer than ${loadTimeoutMs} ms`));
    const timer = clock.setTimeout(giveUp, loadTimeoutMs);
    const loaded = this.#loadEngine(controller.signal);
    this.#load = { controller, settled: loaded.catch(() => {}) };
    try {
      await loaded;
    } finally {
      clock.clearTimeout(timer);
      this.#load = undefined;
    }
  }

  async #loadEngine(signal: AbortSignal): Promise<void> {
    const { name, spec, create } = this.#options;
    this.#move("loading");
    const engine = create(spec);
    this.#engine = engine;
    void engine.gone.then((reason) => this.#lost(engine, reason));
    try {
      const signature = await engine.load(signal);
      this.#runtime = signature.engine;
      if (this.#state.is("loading")) this.#move("warming");
      const problems = contradictions(spec, signature);
      if (problems.length === 0) problems.push(...(await warmUpFaults(engine, spec)));
      if (problems.length === 0) problems.push(...(await this.#faults(engine)));
      if (problems.length > 0) throw new EngineCrashedError(name, problems.join("; "));
      if (this.#state.is("warming")) this.#move("ready");
    } catch (error) {
      this.#lost(engine, wholeReason(error as Error));
      await engine.close();
      throw error;
    }
  }

  async #faults(engine: Engine): Promise<string[]> {
    const { prove, spec } = this.#options;
    const fault = await prove?.(async (item) => {
      const outputs = await engine.run(item, 1, { deadline: Number.POSITIVE_INFINITY });
      return outputFault(spec, outputs, 1) === undefined
        ? (settledItems(outputs, 1)[0] ?? new Error("no answer"))
        : new Error("no answer");
    });
    return fault === undefined ? [] : [fault];
  }

  /** The engine died, or is of no use. Once for each engine; one that was closed on purpose is no loss. */
  #lost(engine: Engine, reason: string): void {
    if (engine !== this.#engine || this.#state.is("closed")) return;
    const { clock, onDeath } = this.#options;
    this.#engine = undefined;
    this.#deaths++;
    onDeath(reason);
    this.#move("resting");
    if (this.#proven) this.#rest = clock.setTimeout(() => this.#reload(), restMs(this.#deaths));
  }

  #reload(): void {
    if (!this.#state.is("resting")) return;
    // A failed load was a death, and the next rest has begun.
    this.#start().catch(() => {});
  }
}

async function warmUpFaults(engine: Engine, spec: EngineSpec): Promise<string[]> {
  const faults: string[] = [];
  for (const count of new Set([1, spec.maxBatch])) {
    const scope = { deadline: Number.POSITIVE_INFINITY };
    const outputs = await engine.run(blankBatch(spec, count), count, scope);
    const fault =
      outputFault(spec, outputs, count) ??
      settledItems(outputs, count).find((item): item is Error => item instanceof Error)?.message;
    if (fault) faults.push(`a batch of ${count} for warm-up failed: ${fault}`);
  }
  return faults;
}
