import type { ChildProcess } from "node:child_process";
import { readFile } from "node:fs/promises";
import { BatchPolicy } from "../batching/policy.ts";
import { EngineCrashedError, PredictionFailedError } from "../errors.ts";
import { hold, startChild, usageOf } from "../process/child.ts";
import { StateMachine } from "../state-machine.ts";
import type { Engine, EngineSpec, RunScope, Signature } from "./engine.ts";
import type { FromChild, ToChild } from "./messages.ts";
import type { Tensors } from "./tensors.ts";

export interface EngineProcessOptions {
  /** The model's name, for errors and logs. */
  readonly name: string;
  /** Most memory the process may have, bytes: above it is killed. @default Infinity */
  readonly maxMemoryBytes?: number;
}

/** A run is given as long as its batch is expected to take, times these: the least while somebody waits, and the most. */
const PATIENCE = { least: 3, most: 20 };
/** Shorter than this no run is wedged: a disk or a garbage collection may stall it so long. */
const MIN_RUN_LIMIT_MS = 2_000;
/** A run is looked at so often; most have ended before the first time. */
const LOOK_MS = 500;
/** For what was never measured: the first runs, which warm the engine up. */
const FIRST_RUN_LIMIT_MS = 60_000;
/** A process that was asked to close, or is no longer wanted, is killed after so long. */
const CLOSE_LIMIT_MS = 5_000;
const MEMORY_CHECK_MS = 500;
/** Of what the process wrote to stderr, kept to say why it died. */
const STDERR_KEPT = 2_000;

type State = "starting" | "loading" | "idle" | "running" | "closing" | "dead";

const MOVES: Readonly<Record<State, readonly State[]>> = {
  starting: ["loading", "dead"],
  loading: ["idle", "dead"],
  idle: ["running", "closing", "dead"],
  running: ["idle", "dead"],
  closing: ["dead"],
  dead: [],
};

/** The state that a message of the process leads to; after `refused` it is killed. */
const AFTER: Readonly<Partial<Record<FromChild["type"], State>>> = {
  started: "loading",
  loaded: "idle",
  done: "idle",
  failed: "idle",
};

/**
 * An engine in a process of its own. Native code that computes cannot be interrupted, and whatever goes wrong in it
 * takes its whole process along: so it has one to itself, which can be killed, is limited in its memory, and gives it
 * back.
 *
 *     starting ─► loading ─► idle ⇄ running
 *         │          │        │ │       │
 *         │          │   closing│       │
 *         │          │        │ │       │
 *         └──────────┴────────┴─┴───────┴─► dead
 *
 * It ends by itself when this process does.
 */
export class EngineProcess implements Engine {
  readonly #module: string;
  readonly #spec: EngineSpec;
  readonly #name: string;
  readonly #maxMemoryBytes: number;
  readonly #state: StateMachine<State>;
  readonly #gone = Promise.withResolvers<string>();
  readonly #timings = new BatchPolicy();
  #child: ChildProcess | undefined;
  /** What the load or the run waits for. */
  #awaited: PromiseWithResolvers<FromChild> | undefined;
  #memoryCheck: NodeJS.Timeout | undefined;
  #closed: Promise<void> | undefined;
  #stderr = "";

  /** @param module URL of the runtime's module */
  constructor(module: string, spec: EngineSpec, { name, maxMemoryBytes = Infinity }: EngineProcessOptions) {
    this.#module = module;
    this.#spec = spec;
    this.#name = name;
    this.#maxMemoryBytes = maxMemoryBytes;
    this.#state = new StateMachine(`the engine of ${name}`, MOVES, "starting");
  }

  get gone(): Promise<string> {
    return this.#gone.promise;
  }

  get state(): State {
    return this.#state.state;
  }

  /** Of the process, while it lives. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  async load(signal: AbortSignal): Promise<Signature> {
    signal.throwIfAborted();
    const child = this.#start();
    const giveUp = () => this.#kill((signal.reason as Error).message);
    signal.addEventListener("abort", giveUp);
    try {
      await this.#reply();
      this.#send(child, { type: "load", module: this.#module, spec: this.#spec });
      const reply = await this.#reply();
      if (reply.type === "loaded") return reply.signature;
      const reason = reply.type === "refused" ? reply.reason : `it said "${reply.type}" while it loaded`;
      this.#kill(reason);
      throw this.#crashed("its model cannot be loaded", reason);
    } finally {
      signal.removeEventListener("abort", giveUp);
    }
  }

  async run(batch: Tensors, count: number, { deadline }: RunScope): Promise<Tensors> {
    const child = this.#child;
    if (!child || this.#closed || this.#state.is("dead")) throw this.#crashed("it is closed");
    this.#state.move("running");
    this.#send(child, { type: "run", batch, count });
    const unwatch = this.#watch(child.pid ?? 0, this.#runLimitMs(count, deadline - performance.now()));
    try {
      const reply = await this.#reply();
      if (reply.type === "failed") throw new PredictionFailedError(this.#name, withoutPaths(reply.reason));
      if (reply.type !== "done") throw this.#crashed(`it said "${reply.type}" in a run`);
      this.#timings.observe(count, reply.computeMs);
      return reply.outputs;
    } finally {
      unwatch();
    }
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    const limit = setTimeout(() => this.#kill("it did not close in time"), CLOSE_LIMIT_MS);
    // Never inside of a call: what computes is let finish.
    if (this.#state.is("running")) await this.#awaited?.promise.catch(() => {});
    if (this.#child && this.#state.is("idle")) {
      this.#state.move("closing");
      this.#send(this.#child, { type: "close" });
    } else this.#kill("it is closed");
    await this.gone;
    clearTimeout(limit);
  }

  #start(): ChildProcess {
    const child = startChild(new URL("./child.ts", import.meta.url), { stderr: true });
    hold(child, true);
    this.#child = child;
    this.#awaited = Promise.withResolvers();
    child.on("message", (message: FromChild) => this.#heard(message));
    child.on("error", (error) => this.#kill(error.message, { killed: true }));
    child.on("exit", (code, signal) =>
      this.#die(signal ? `ended by ${signal}` : `exited with code ${code}`, { killed: signal === "SIGKILL" }),
    );
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_KEPT);
    });
    if (Number.isFinite(this.#maxMemoryBytes)) {
      this.#memoryCheck = setInterval(() => this.#checkMemory(child.pid ?? 0), MEMORY_CHECK_MS).unref();
    }
    return child;
  }

  #heard(message: FromChild): void {
    if (this.#state.is("closing", "dead")) return;
    const next = AFTER[message.type];
    // It runs foreign code, so it may say anything at any time.
    if (next && !this.#state.canMove(next)) this.#kill(`it said "${message.type}" out of turn`);
    else if (next) this.#state.move(next);
    this.#awaited?.resolve(message);
  }

  #send(child: ChildProcess, message: ToChild): void {
    this.#awaited = Promise.withResolvers();
    child.send(message, (error) => {
      // It has died before it heard of this: whatever for.
      if (error) this.#kill(`it cannot be spoken to: ${error.message}`, { killed: true });
    });
  }

  async #reply(): Promise<FromChild> {
    const { promise } = this.#awaited ?? Promise.withResolvers<FromChild>();
    return promise;
  }

  #runLimitMs(count: number, leftMs: number): number {
    const expected = this.#timings.estimate(count);
    if (expected === undefined) return FIRST_RUN_LIMIT_MS;
    const limit = Math.min(Math.max(leftMs, PATIENCE.least * expected), PATIENCE.most * expected);
    return Math.max(limit, MIN_RUN_LIMIT_MS);
  }

  /**
   * Kills the process when its run is over its limit. Time that it waited for a core does not count: on a machine that
   * has too much to do nobody is wedged.
   *
   * @returns ends the watch
   */
  #watch(pid: number, limitMs: number): () => void {
    const began = performance.now();
    let waitedBefore: number | undefined;
    const look = async () => {
      const waited = await waitedForCoreMs(pid);
      waitedBefore ??= waited;
      const tookMs = performance.now() - began - (waited - waitedBefore);
      if (tookMs > limitMs && watching) this.#kill("a run took far longer than it should");
    };
    let watching = true;
    const timer = setInterval(look, LOOK_MS).unref();
    return () => {
      watching = false;
      clearInterval(timer);
    };
  }

  #kill(reason: string, { killed = false } = {}): void {
    this.#child?.kill("SIGKILL");
    this.#die(reason, { killed });
  }

  /** @param killed by someone else, see {@link EngineCrashedError.killed} */
  #die(reason: string, { killed = false } = {}): void {
    if (this.#state.is("dead")) return;
    this.#state.move("dead");
    clearInterval(this.#memoryCheck);
    this.#awaited?.promise.catch(() => {});
    this.#awaited?.reject(new EngineCrashedError(this.#name, reason, { killed }));
    this.#gone.resolve([reason, this.#stderr.trim()].filter(Boolean).join(": "));
  }

  /** @param cause what the runtime said: it may hold paths, which are no client's business */
  #crashed(reason: string, cause?: string): EngineCrashedError {
    const error = new EngineCrashedError(this.#name, reason);
    if (cause) error.cause = new Error(cause);
    return error;
  }

  #checkMemory(pid: number): void {
    const { memoryBytes = 0 } = usageOf(pid) ?? {};
    if (memoryBytes <= this.#maxMemoryBytes) return;
    const mb = (n: number) => Math.round(n / 2 ** 20);
    this.#kill(`it took ${mb(memoryBytes)} MB of memory, and may have ${mb(this.#maxMemoryBytes)}`);
  }
}

/** How long the process's first thread, which takes part in every run, has waited; 0 where the system does not say. */
async function waitedForCoreMs(pid: number): Promise<number> {
  const schedstat = await readFile(`/proc/${pid}/schedstat`, "utf8").catch(() => "");
  return Number(schedstat.split(" ")[1] ?? 0) / 1e6;
}

/** The runtime's words as a client may read them: of a path only its last part. */
function withoutPaths(text: string): string {
  return text.replaceAll(/(?:\/[\w.@+-]+)+\/([\w.@+-]+)/g, "$1");
}
