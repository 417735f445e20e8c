import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { EngineCrashedError, PredictionFailedError } from "../errors.ts";
import type { EngineSpec, FromWorker, ToWorker } from "./engine.ts";

export interface EngineHostOptions {
  /** The model's name, for errors and logs. */
  readonly name: string;
  readonly spec: EngineSpec;
  /** Longest time to load and warm up, milliseconds. @default 60000 */
  readonly loadTimeoutMs?: number;
  /** A run that takes longer counts as a crash, milliseconds. @default 30000 */
  readonly runTimeoutMs?: number;
  /** Told of every replacement of a dead worker. */
  readonly onRestart?: (reason: string) => void;
}

interface Pending {
  readonly resolve: (output: Float32Array) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

const DISPOSE_TIMEOUT_MS = 5_000;

/** Delay before the next worker, after 1, 2, … deaths without an answer in between. Doubles up to 5 s. */
const restartDelayMs = (deaths: number) => (deaths <= 1 ? 0 : Math.min(5_000, 50 * 2 ** (deaths - 2)));

/**
 * An engine in a worker thread, so that the event loop stays free while it computes.
 *
 * States: loading → ready → (the worker dies: its batches fail with ENGINE_CRASHED) → loading → …, and from any of
 * them → disposed, which is final. A run that comes while a worker loads waits for it.
 */
export class EngineHost {
  readonly #options: Required<Omit<EngineHostOptions, "onRestart">> & Pick<EngineHostOptions, "onRestart">;
  readonly #pending = new Map<number, Pending>();
  #worker: Worker | undefined;
  #ready: Promise<Worker> | undefined;
  #nextId = 0;
  /** The last worker whose model was loaded and warm, whether or not it lives. */
  #warm: Worker | undefined;
  #deaths = 0;
  #disposed = false;

  constructor(options: EngineHostOptions) {
    this.#options = { loadTimeoutMs: 60_000, runTimeoutMs: 30_000, ...options };
  }

  /** Whether a run would start now, its model loaded and warm. */
  get ready(): boolean {
    return this.#worker !== undefined && this.#worker === this.#warm;
  }

  /**
   * Starts the worker and resolves when the model is loaded and warm.
   *
   * @throws EngineCrashedError if the model cannot be loaded
   */
  async load(): Promise<void> {
    await this.#start();
  }

  /**
   * Computes one batch. The memory of `pixels` is handed over: the caller must not touch it afterwards.
   *
   * @param pixels `[count, …itemShape]` uint8
   * @returns `[count, outputs]` float32
   * @throws EngineCrashedError (retryable) if the worker dies under it or exceeds the run's time
   * @throws PredictionFailedError if the runtime refuses the batch
   */
  async run(pixels: Uint8Array<ArrayBuffer>, count: number): Promise<Float32Array> {
    if (this.#disposed) throw new EngineCrashedError(this.#options.name, "it is disposed");
    const worker = await (this.#ready ?? this.#start());
    if (worker !== this.#worker) throw new EngineCrashedError(this.#options.name, "its thread is gone");
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#buried(worker, `a run took longer than ${this.#options.runTimeoutMs} ms`);
      }, this.#options.runTimeoutMs);
      this.#pending.set(id, { resolve, reject, timer });
      worker.postMessage({ id, pixels, count } satisfies ToWorker, [pixels.buffer]);
    });
  }

  /** Ends the worker; what it computes is lost. */
  async dispose(): Promise<void> {
    this.#disposed = true;
    const worker = this.#worker;
    this.#worker = undefined;
    this.#failPending("it is disposed");
    if (!worker) return;
    const gone = once(worker, "exit", { signal: AbortSignal.timeout(DISPOSE_TIMEOUT_MS) }).catch(() => {});
    await Promise.race([worker.terminate(), gone]);
  }

  #start(): Promise<Worker> {
    const ready = this.#spawn();
    this.#ready = ready;
    // A failed load is reported to whoever awaits it; the next run tries again.
    ready.catch(() => {
      if (this.#ready === ready) this.#ready = undefined;
    });
    return ready;
  }

  async #spawn(): Promise<Worker> {
    const delay = restartDelayMs(this.#deaths);
    if (delay > 0) await new Promise((resolve) => setTimeout(resolve, delay));
    if (this.#disposed) throw new EngineCrashedError(this.#options.name, "it is disposed");
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { workerData: this.#options.spec });
    this.#worker = worker;
    return new Promise((resolve, reject) => {
      const fail = (reason: string) => {
        clearTimeout(timer);
        reject(new EngineCrashedError(this.#options.name, reason));
        this.#buried(worker, reason);
      };
      const timer = setTimeout(
        () => fail(`loading took longer than ${this.#options.loadTimeoutMs} ms`),
        this.#options.loadTimeoutMs,
      );
      worker.on("message", (message: FromWorker) => {
        if (message.type === "ready") {
          clearTimeout(timer);
          this.#warm = worker;
          resolve(worker);
        } else this.#answer(message);
      });
      worker.on("error", (error) => fail((error as Error).message));
      worker.on("exit", (code) => fail(`its thread exited with code ${code}`));
    });
  }

  #answer(message: Exclude<FromWorker, { type: "ready" }>): void {
    const pending = this.#pending.get(message.id);
    if (!pending) return;
    this.#pending.delete(message.id);
    clearTimeout(pending.timer);
    this.#deaths = 0;
    if (message.type === "done") pending.resolve(message.output);
    else pending.reject(new PredictionFailedError(this.#options.name, message.reason));
  }

  /** A worker is dead or must be: its batches fail, and a new one loads. */
  #buried(worker: Worker, reason: string): void {
    if (this.#worker !== worker) return;
    this.#worker = undefined;
    this.#ready = undefined;
    this.#deaths += 1;
    void worker.terminate();
    this.#failPending(reason);
    if (this.#disposed || !this.#warm) return;
    this.#options.onRestart?.(reason);
    this.#start().catch(() => {});
  }

  #failPending(reason: string): void {
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer);
      reject(new EngineCrashedError(this.#options.name, reason));
    }
    this.#pending.clear();
  }
}
