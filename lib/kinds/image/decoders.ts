import type { ChildProcess } from "node:child_process";
import { ServingError } from "../../errors.ts";
import { hold, startChild, usageOf } from "../../process/child.ts";
import type { Decoded, FromDecoder, Job, ToDecoder } from "./decoding.ts";

/** What one image may cost its decoder. */
export interface Allowance {
  /** Resident memory on top of an idle decoder's, bytes. */
  readonly memoryBytes: number;
  /** CPU time, milliseconds. */
  readonly cpuMs: number;
  /** Time on the clock, milliseconds: for what sleeps or was stopped, and where the system tells no CPU time. */
  readonly wallMs: number;
}

/** Why a decoder was ended under an image. */
export type Verdict = "memory" | "time" | "crash";

/** An image that ended its decoder, twice if it was a crash. */
export class DecoderKilledError extends Error {
  readonly verdict: Verdict;

  constructor(verdict: Verdict) {
    super(`The decoder was ended: ${verdict}`);
    this.name = "DecoderKilledError";
    this.verdict = verdict;
  }
}

/**
 * How often a busy decoder's use is looked at, milliseconds. The look takes 0.03 ms, most photos are done before the
 * first; memory of which nobody knew can grow by some 50 MB in between.
 */
const WATCH_MS = 20;
/** Memory above an idle decoder's with which one is kept after an image: 12-megapixel photos leave 20 to 60 MB. */
const KEPT_BYTES = 128 * 2 ** 20;
/** Longest time to start, milliseconds: 0.1 s on an idle machine. */
const START_MS = 30_000;
/** Delay before the next start after 1, 2, … processes that ended before they were ready. Doubles up to 5 s. */
const restartDelayMs = (failures: number) =>
  failures === 0 ? 0 : Math.min(5_000, 100 * 2 ** (failures - 1));

/** One libuv thread, as one image is decoded at a time, and one heap: it gives memory back sooner. */
const FLAGS = ["--expose-gc"];
const ENV = { UV_THREADPOOL_SIZE: "1", MALLOC_ARENA_MAX: "1" };

export interface DecodersOptions {
  /** What runs in each process; it must speak as `decoder.ts` does. @default decoder.ts */
  readonly module?: URL;
  /** Told of every process that ended under an image. */
  readonly onEnded?: ((verdict: Verdict) => void) | undefined;
}

/**
 * A fixed number of processes that decode. Each has one image at a time; more than there are processes may not be given
 * at once (the caller's semaphore sees to that). One that is ended, by us or by its image, is replaced at once.
 */
export class Decoders {
  readonly #places: readonly Decoder[];

  constructor(count: number, options: DecodersOptions = {}) {
    this.#places = Array.from({ length: count }, () => new Decoder(options));
  }

  /** Starts all, so that no image waits for it. Resolves when one is ready. */
  async start(): Promise<void> {
    await Promise.any(this.#places.map((decoder) => decoder.start()));
  }

  /** Whether one of them is up, or ended after it was: one that is being replaced is no reason to send work away. */
  get ready(): boolean {
    return this.#places.some((decoder) => decoder.able);
  }

  /** Of the processes that are up. */
  get pids(): readonly number[] {
    return this.#places.flatMap((decoder) => decoder.pid ?? []);
  }

  /**
   * A crash may have been another's doing (the kernel's, out of memory; an operator's), so that image is tried once more.
   *
   * @throws DecoderKilledError
   * @throws ServingError INTERNAL if no decoder can be started
   */
  async decode(job: Job, allowance: Allowance): Promise<Decoded> {
    try {
      return await this.#free().decode(job, allowance);
    } catch (error) {
      if (!(error instanceof DecoderKilledError && error.verdict === "crash")) throw error;
      return this.#free().decode(job, allowance);
    }
  }

  /** Ends all processes; what they decode is lost. */
  close(): void {
    for (const decoder of this.#places) decoder.close();
  }

  /** A place without work: one that is ready, if there is. */
  #free(): Decoder {
    const free = this.#places.filter((decoder) => !decoder.busy);
    const decoder = free.find(({ pid }) => pid !== undefined) ?? free[0];
    if (!decoder) throw new Error("More images at once than there are decoders");
    return decoder;
  }
}

interface Running {
  readonly resolve: (decoded: Decoded) => void;
  readonly reject: (error: Error) => void;
}

/**
 * One place for a decoding process.
 *
 * States of its process: none → starting → idle ⇄ busy, and from each of them → none, when it ends. The first is started
 * ahead or by the first image; one that was up is replaced at once, again and again. Closed is final.
 */
class Decoder {
  readonly #module: URL;
  readonly #onEnded: (verdict: Verdict) => void;
  #child: ChildProcess | undefined;
  #starting: Promise<ChildProcess> | undefined;
  #running: Running | undefined;
  #taken = false;
  #idleBytes = 0;
  #failures = 0;
  #jobs = 0;
  #closed = false;

  constructor({ module = new URL("./decoder.ts", import.meta.url), onEnded = () => {} }: DecodersOptions) {
    this.#module = module;
    this.#onEnded = onEnded;
  }

  get busy(): boolean {
    return this.#taken;
  }

  /** Whether its last process could be started. */
  get able(): boolean {
    return this.#failures === 0 && !this.#closed;
  }

  /** Of its process, once that is up. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Resolves with a process that is idle. */
  start(): Promise<ChildProcess> {
    if (this.#child) return Promise.resolve(this.#child);
    this.#starting ??= this.#launch().finally(() => {
      this.#starting = undefined;
    });
    return this.#starting;
  }

  async decode(job: Job, allowance: Allowance): Promise<Decoded> {
    this.#taken = true;
    try {
      const child = await this.start();
      hold(child, true);
      try {
        return await this.#run(child, job, allowance);
      } finally {
        hold(child, false);
      }
    } finally {
      this.#taken = false;
    }
  }

  close(): void {
    this.#closed = true;
    this.#child?.kill("SIGKILL");
  }

  async #launch(): Promise<ChildProcess> {
    const delay = restartDelayMs(this.#failures);
    if (delay > 0) await new Promise((resolve) => setTimeout(resolve, delay).unref());
    const unavailable = () => new ServingError("INTERNAL", "The image decoder cannot be started");
    if (this.#closed) throw unavailable();
    const child = startChild(this.#module, { env: ENV, flags: FLAGS });
    hold(child, true);
    const timer = setTimeout(() => child.kill("SIGKILL"), START_MS);
    const ready = await new Promise<boolean>((resolve) => {
      child.once("message", () => resolve(true)).once("exit", () => resolve(false));
    });
    clearTimeout(timer);
    hold(child, false);
    if (!ready) {
      this.#failures += 1;
      throw unavailable();
    }
    this.#failures = 0;
    this.#idleBytes = usageOf(child.pid ?? 0)?.memoryBytes ?? 0;
    this.#child = child;
    child.once("exit", () => this.#ended(child, "crash"));
    if (this.#closed) child.kill("SIGKILL");
    return child;
  }

  async #run(child: ChildProcess, job: Job, allowance: Allowance): Promise<Decoded> {
    const id = this.#jobs++;
    const answered = (message: FromDecoder) => {
      if ("id" in message && message.id === id) this.#running?.resolve(message);
    };
    child.on("message", answered);
    const stopWatching = this.#watch(child, allowance);
    try {
      return await new Promise<Decoded>((resolve, reject) => {
        this.#running = { resolve, reject };
        child.send({ id, job } satisfies ToDecoder, (error) => {
          if (error) this.#ended(child, "crash");
        });
      });
    } finally {
      this.#running = undefined;
      stopWatching();
      child.off("message", answered);
      if (allowance.memoryBytes > KEPT_BYTES) this.#renew(child);
    }
  }

  /** Ends the process when it takes more than it may; from outside, as it cannot be trusted to. */
  #watch(child: ChildProcess, { memoryBytes, cpuMs, wallMs }: Allowance): () => void {
    const began = performance.now();
    let first: number | undefined;
    const timer = setInterval(() => {
      const now = usageOf(child.pid ?? 0);
      first ??= now?.cpuMs;
      if (now && now.memoryBytes - this.#idleBytes > memoryBytes) this.#ended(child, "memory");
      else if (now && now.cpuMs - (first ?? 0) > cpuMs) this.#ended(child, "time");
      else if (performance.now() - began > wallMs) this.#ended(child, "time");
    }, WATCH_MS);
    return () => clearInterval(timer);
  }

  /** A process that kept much of a large image's memory gives it back by its end. */
  #renew(child: ChildProcess): void {
    const { memoryBytes = 0 } = usageOf(child.pid ?? 0) ?? {};
    if (memoryBytes - this.#idleBytes > KEPT_BYTES) this.#ended(child, "memory");
  }

  #ended(child: ChildProcess, verdict: Verdict): void {
    if (this.#child !== child) return;
    this.#child = undefined;
    child.kill("SIGKILL");
    if (this.#running && !this.#closed) this.#onEnded(verdict);
    this.#running?.reject(new DecoderKilledError(verdict));
    void this.#replace();
  }

  /** Until one is up again: without, no image would come that could start it. */
  async #replace(): Promise<void> {
    while (!this.#closed && !this.#child) await this.start().catch(() => {});
  }
}
