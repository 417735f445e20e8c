import { inspect, types } from "node:util";
import {
  CancelledError,
  DeadlineExceededError,
  DrainingError,
  PoisonError,
  PredictionFailedError,
  QueueFullError,
  ServingError,
} from "../errors.ts";
import { type Clock, systemClock } from "../request/clock.ts";
import type { DispatchReason } from "../types.ts";
import { Fifo, type Place } from "./fifo.ts";
import { BatchPolicy } from "./policy.ts";

export interface BatcherOptions<I, O> {
  /** The model's name, for errors. */
  readonly name: string;
  /**
   * Computes one batch; called with 1 to `maxBatchSize` inputs. Resolves to one result for each input, in their order.
   * An `Error` in a slot fails that item alone. Rejecting (or throwing) means that the batch failed as a whole and
   * nobody knows whose fault it is: it is bisected. ENGINE_CRASHED: its items are tried one by one, and the one that
   * crashes the engine again is POISON_REQUEST.
   */
  readonly run: (inputs: readonly I[]) => Promise<readonly (O | Error)[]>;
  /**
   * Most items in one batch. Minimum: 1. Batches are taken from the queue, so keep `maxQueueSize` at least this.
   * @default 8
   */
  readonly maxBatchSize?: number;
  /**
   * Most items waiting; those in the engine don't count. Also the largest single request. Minimum: 1.
   * @default 64
   */
  readonly maxQueueSize?: number;
  /**
   * Longest time, in milliseconds, that the oldest item waits for company while a slot of the engine is free. Only
   * matters with `concurrency` ≥ 2: an engine without any batch takes what is queued at once, and one without a free
   * slot takes nothing. In between, a further slot is used once the batch is full, the delay is over, or a deadline
   * is at stake. Minimum: 0.
   * @default 0
   */
  readonly maxQueueDelayMs?: number;
  /**
   * Batches in the engine at once. Minimum: 1.
   * @default 1
   */
  readonly concurrency?: number;
  /**
   * Longest time, in milliseconds, that a batch should take in the engine: the batch size is bounded so that it does,
   * by what was measured ({@link BatchPolicy}). Above 0.
   * @default undefined: bounded by `maxBatchSize` only
   */
  readonly latencyTargetMs?: number | undefined;
  /** @default systemClock */
  readonly clock?: Clock;
  /** Called after each batch, for metrics and logs. Must not throw. */
  readonly onBatch?: (report: BatchReport) => void;
}

export interface SubmitOptions {
  /** When to give up waiting, on the batcher's clock. @default undefined: never */
  readonly deadline?: number | undefined;
  /** Aborting takes what still waits out of the queue; what is in the engine stays there. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Each item gets a batch of its own: for a request that is suspected of having brought a node down, so that it
   * takes nobody with it.
   * @default false
   */
  readonly alone?: boolean;
}

/** One item's answer and what happened to it on the way, or why there is none. */
export type SettledItem<O> =
  | {
      readonly ok: true;
      readonly value: O;
      /** Items in the batch that gave the answer. */
      readonly batchSize: number;
      readonly dispatchReason: DispatchReason;
      /** Milliseconds from `submit` until that batch left. Includes batches that failed before, if any. */
      readonly queueMs: number;
      /** Milliseconds that batch spent in the engine. */
      readonly computeMs: number;
    }
  | { readonly ok: false; readonly error: Error };

/** One batch that came back from the engine. */
export interface BatchReport {
  readonly size: number;
  /** A part of a failed batch has that batch's reason. */
  readonly reason: DispatchReason;
  /** Whether this is a part of a batch that failed before. */
  readonly bisected: boolean;
  /** Milliseconds from the oldest item's `submit` until the batch left. */
  readonly queueMs: number;
  /** Milliseconds in the engine. */
  readonly computeMs: number;
  /** What `run` rejected with, or how it broke its contract; undefined: the batch succeeded. */
  readonly error: Error | undefined;
}

interface Request<I, O> {
  /** Of its items in the queue; a place whose item has left removes nothing. */
  readonly places: Place<Item<I, O>>[];
  readonly results: SettledItem<O>[];
  readonly queuedAt: number;
  /** Infinity: none. */
  readonly deadline: number;
  readonly signal: AbortSignal | undefined;
  readonly alone: boolean;
  unsettled: number;
  /** Timer of the deadline. */
  expiry: unknown;
  readonly answer: (results: SettledItem<O>[]) => void;
}

interface Item<I, O> {
  readonly input: I;
  /** Where its answer goes in the request's results. */
  readonly index: number;
  readonly request: Request<I, O>;
}

interface Batch<I, O> {
  readonly items: readonly Item<I, O>[];
  readonly reason: DispatchReason;
  readonly bisected: boolean;
}

/**
 * Makes batches out of the items of many requests, and gives every request its answers in its own order.
 *
 * ## An item
 *
 *     submit ─► waiting ─► running ─► settled
 *                  │        │  ▲         ▲
 *                  │        ▼  │         │
 *                  │       suspect ──────┤ expired, cancelled
 *                  └─────────────────────┘
 *
 * - *waiting*: in the queue; counts against `maxQueueSize`. A request is admitted whole or not at all.
 * - *running*: in a batch in the engine. Cannot be cancelled; is answered even after its deadline.
 * - *suspect*: in one half of a batch that failed. Goes before anything that waits, the first half first, until every
 *   bad item is alone. Expired or cancelled ones are left out when the half leaves.
 *
 * An item is settled exactly once, and never computed at or after its deadline.
 *
 * ## A free slot
 *
 * Whenever something changed, every free slot of the engine is offered to, in this order:
 * 1. the halves of failed batches;
 * 2. the head of the queue: the oldest items, up to the bound on the batch size, none of them `alone` unless it is
 *    the only one. They leave for the first of these reasons that holds:
 *    - `full`: the batch cannot grow: it has reached the bound, or it is or stands before an `alone` item;
 *    - `idle`: no batch is in the engine; or there is no delay to wait for (`maxQueueDelayMs` is 0, or draining), and
 *      then no more than one slot's share of all that waits and runs;
 *    - `delay`: the oldest has waited `maxQueueDelayMs`;
 *    - `deadline`: with what such a batch takes, one of them would miss its deadline. Before the first measurement
 *      any deadline is at stake.
 *
 * So the engine is never idle while an item waits, and items leave the queue in the order they came.
 *
 * ## The batcher
 *
 * *open* ─ `drain()` ► *draining* ─ last item settled ► *drained*. There is no way back: it refuses new work from
 * `drain()` on.
 */
export class Batcher<I, O> {
  readonly #name: string;
  readonly #run: BatcherOptions<I, O>["run"];
  readonly #maxBatchSize: number;
  readonly #maxQueueSize: number;
  readonly #maxQueueDelayMs: number;
  readonly #concurrency: number;
  readonly #clock: Clock;
  readonly #onBatch: BatcherOptions<I, O>["onBatch"];
  readonly #policy: BatchPolicy;

  readonly #queue = new Fifo<Item<I, O>>();
  /** Halves of failed batches, the next on top. */
  readonly #suspects: Batch<I, O>[] = [];
  /** Batches in the engine. */
  #running = 0;
  /** Items waiting, suspect or running. */
  #unsettled = 0;
  /**
   * Timer for the moment the head of the queue has to use a free slot. It may be out of date, and then finds nothing
   * to do.
   */
  #wake: unknown;
  #drained: PromiseWithResolvers<void> | undefined;

  /** @throws {TypeError} an option is not what it should be */
  constructor({
    name,
    run,
    maxBatchSize = 8,
    maxQueueSize = 64,
    maxQueueDelayMs = 0,
    concurrency = 1,
    latencyTargetMs,
    clock = systemClock,
    onBatch,
  }: BatcherOptions<I, O>) {
    for (const [option, value] of Object.entries({ maxBatchSize, maxQueueSize, concurrency })) {
      checkOption(option, value, "an integer of at least 1", (n) => Number.isInteger(n) && n >= 1);
    }
    const isDelay = (ms: number) => Number.isFinite(ms) && ms >= 0;
    checkOption("maxQueueDelayMs", maxQueueDelayMs, "a finite number of at least 0", isDelay);
    if (latencyTargetMs !== undefined) {
      checkOption("latencyTargetMs", latencyTargetMs, "a number above 0", (ms) => ms > 0);
    }
    this.#name = name;
    this.#run = run;
    this.#maxBatchSize = maxBatchSize;
    this.#maxQueueSize = maxQueueSize;
    this.#maxQueueDelayMs = maxQueueDelayMs;
    this.#concurrency = concurrency;
    this.#clock = clock;
    this.#onBatch = onBatch;
    this.#policy = new BatchPolicy(latencyTargetMs);
  }

  /** Items waiting; items suspect or running; and the bound on the batch size in force now. */
  get stats(): { readonly queued: number; readonly inFlight: number; readonly batchLimit: number } {
    return {
      queued: this.#queue.size,
      inFlight: this.#unsettled - this.#queue.size,
      batchLimit: this.#policy.limit(this.#maxBatchSize),
    };
  }

  /**
   * Queues every input and resolves to one settled item for each, in their order, once all are settled. The items may
   * go in several batches.
   *
   * An item's error is a `ServingError`: `DeadlineExceededError` or `CancelledError` if it left before compute, what
   * `run` gave if that was one, else `PredictionFailedError` (with the engine's error as `cause`).
   * @throws {DrainingError} after `drain()`
   * @throws {QueueFullError} the queue has fewer free places than there are inputs; none was queued
   * @throws {ServingError} PAYLOAD_TOO_LARGE: more inputs than the queue has places at all
   */
  async submit(inputs: readonly I[], options: SubmitOptions = {}): Promise<SettledItem<O>[]> {
    const { deadline = Number.POSITIVE_INFINITY, signal, alone = false } = options;
    if (this.#drained) throw new DrainingError();
    if (inputs.length > this.#maxQueueSize) {
      throw new ServingError(
        "PAYLOAD_TOO_LARGE",
        `Expected at most ${this.#maxQueueSize} items in one request to ${this.#name} but received ${inputs.length}`,
      );
    }
    const queuedAt = this.#clock.now();
    const error = refusal({ deadline, signal }, queuedAt);
    if (error) return inputs.map(() => ({ ok: false, error }));
    if (inputs.length > this.#maxQueueSize - this.#queue.size) {
      throw new QueueFullError(this.#name, this.#maxQueueSize);
    }
    if (inputs.length === 0) return [];

    const { promise, resolve: answer } = Promise.withResolvers<SettledItem<O>[]>();
    const request: Request<I, O> = {
      places: [],
      results: new Array(inputs.length),
      queuedAt,
      deadline,
      signal,
      alone,
      unsettled: inputs.length,
      expiry: undefined,
      answer,
    };
    for (const [index, input] of inputs.entries()) {
      request.places.push(this.#queue.push({ input, index, request }));
    }
    this.#unsettled += inputs.length;

    const onAbort = () => this.#withdraw(request, new CancelledError());
    signal?.addEventListener("abort", onAbort);
    if (deadline < Number.POSITIVE_INFINITY) this.#watchDeadline(request);
    this.#fillSlots();
    const results = await promise;
    signal?.removeEventListener("abort", onAbort);
    this.#clock.clearTimeout(request.expiry);
    return results;
  }

  /** Refuses new work from now on; resolves when nothing is waiting, suspect or running. */
  drain(): Promise<void> {
    this.#drained ??= Promise.withResolvers<void>();
    this.#fillSlots();
    return this.#drained.promise;
  }

  #watchDeadline(request: Request<I, O>): void {
    const left = request.deadline - this.#clock.now();
    if (left > 0) request.expiry = this.#clock.setTimeout(() => this.#watchDeadline(request), left);
    else this.#withdraw(request, new DeadlineExceededError("queue"));
  }

  /** Takes what still waits of a request out of the queue. */
  #withdraw(request: Request<I, O>, error: ServingError): void {
    for (const place of request.places) {
      if (this.#queue.remove(place)) this.#settle(place.value, { ok: false, error });
    }
  }

  #settle({ request, index }: Item<I, O>, result: SettledItem<O>): void {
    request.results[index] = result;
    this.#unsettled--;
    if (--request.unsettled === 0) request.answer(request.results);
  }

  #fillSlots(): void {
    while (this.#running < this.#concurrency) {
      const batch = this.#nextSuspects() ?? this.#nextQueued();
      if (!batch) break;
      void this.#compute(batch);
    }
    if (this.#unsettled === 0) this.#drained?.resolve();
  }

  #nextSuspects(): Batch<I, O> | undefined {
    const now = this.#clock.now();
    for (let half = this.#suspects.pop(); half; half = this.#suspects.pop()) {
      const items = half.items.filter((item) => !this.#dismiss(item, now));
      if (items.length > 0) return { ...half, items };
    }
    return undefined;
  }

  /** Takes the head of the queue; undefined if it is empty or has to wait (a timer is set then). */
  #nextQueued(): Batch<I, O> | undefined {
    const now = this.#clock.now();
    const limit = this.#policy.limit(this.#maxBatchSize);
    const head: Place<Item<I, O>>[] = [];
    let full = false;
    for (const place of this.#queue) {
      // Its timer may be late: whatever blocked the event loop delays timers, too.
      if (this.#dismiss(place.value, now)) {
        this.#queue.remove(place);
        continue;
      }
      const { alone } = place.value.request;
      if (!alone || head.length === 0) head.push(place);
      full = alone || head.length === limit;
      if (full) break;
    }
    if (head.length === 0) return undefined;
    const items = head.map(({ value }) => value);
    const reason = full ? "full" : this.#reasonToLeave(items, now);
    if (!reason) return undefined;
    const size = reason === "idle" ? Math.min(items.length, this.#share()) : items.length;
    for (const place of head.slice(0, size)) this.#queue.remove(place);
    return { items: items.slice(0, size), reason, bisected: false };
  }

  /** Items in each batch if all slots had as many: one large batch beside a small one makes its callers wait longer. */
  #share(): number {
    return this.#running === 0 ? Number.POSITIVE_INFINITY : Math.ceil(this.#unsettled / this.#concurrency);
  }

  /** Why a batch that could still grow leaves now; undefined if it waits (a timer is set then). */
  #reasonToLeave(items: readonly Item<I, O>[], now: number): DispatchReason | undefined {
    if (this.#running === 0 || this.#maxQueueDelayMs === 0 || this.#drained) return "idle";
    const delayEnds = Math.min(...items.map(({ request }) => request.queuedAt)) + this.#maxQueueDelayMs;
    if (now >= delayEnds) return "delay";
    const deadline = Math.min(...items.map(({ request }) => request.deadline));
    const takes = this.#policy.estimate(items.length) ?? Number.POSITIVE_INFINITY;
    const slackEnds = deadline === Number.POSITIVE_INFINITY ? deadline : deadline - takes;
    if (now >= slackEnds) return "deadline";
    this.#clock.clearTimeout(this.#wake);
    this.#wake = this.#clock.setTimeout(() => this.#fillSlots(), Math.min(delayEnds, slackEnds) - now);
    return undefined;
  }

  /** Settles an item that must not be computed any more; false if it may be. */
  #dismiss(item: Item<I, O>, now: number): boolean {
    const error = refusal(item.request, now);
    if (error) this.#settle(item, { ok: false, error });
    return error !== undefined;
  }

  async #compute({ items, reason, bisected }: Batch<I, O>): Promise<void> {
    const size = items.length;
    const startedAt = this.#clock.now();
    let outputs: readonly (O | Error)[] = [];
    let error: Error | undefined;
    let bisect = false;
    this.#running++;
    try {
      outputs = await this.#run(items.map(({ input }) => input));
      error = this.#brokenContract(outputs, size);
    } catch (thrown) {
      error = types.isNativeError(thrown) ? thrown : new Error(inspect(thrown));
      bisect = size > 1;
    }
    this.#running--;
    const computeMs = this.#clock.now() - startedAt;
    if (!error) this.#policy.observe(size, computeMs);
    if (bisect) {
      // What kills the engine is tried only once more: bisection would let it kill again and again.
      const part = isCrash(error) ? 1 : Math.ceil(size / 2);
      for (let start = Math.floor((size - 1) / part) * part; start >= 0; start -= part) {
        this.#suspects.push({ items: items.slice(start, start + part), reason, bisected: true });
      }
    } else {
      if (bisected && isCrash(error)) error = new PoisonError(this.#name);
      for (const [index, item] of items.entries()) {
        const output = error ?? (outputs[index] as O | Error);
        const queueMs = startedAt - item.request.queuedAt;
        this.#settle(
          item,
          types.isNativeError(output)
            ? { ok: false, error: this.#asServingError(output) }
            : { ok: true, value: output, batchSize: size, dispatchReason: reason, queueMs, computeMs },
        );
      }
    }
    this.#fillSlots();
    const oldest = Math.min(...items.map(({ request }) => request.queuedAt));
    this.#onBatch?.({ size, reason, bisected, queueMs: startedAt - oldest, computeMs, error });
  }

  /** What is wrong with `run`'s results as such. It is nobody's fault in the batch, so it is not bisected. */
  #brokenContract(outputs: unknown, size: number): Error | undefined {
    if (Array.isArray(outputs) && outputs.length === size) return undefined;
    const received = Array.isArray(outputs) ? outputs.length : `a value of type ${typeof outputs}`;
    return new PredictionFailedError(
      this.#name,
      `expected ${size} results, one for each input, but received ${received}`,
    );
  }

  #asServingError(error: Error): ServingError {
    if (error instanceof ServingError) return error;
    const failure = new PredictionFailedError(this.#name, error.message);
    failure.cause = error;
    return failure;
  }
}

function isCrash(error: Error | undefined): boolean {
  return error instanceof ServingError && error.type === "ENGINE_CRASHED";
}

/** Why an item of such a request must not be computed, if so. */
function refusal(
  { deadline, signal }: Pick<Request<unknown, unknown>, "deadline" | "signal">,
  now: number,
): ServingError | undefined {
  if (signal?.aborted) return new CancelledError();
  return now >= deadline ? new DeadlineExceededError("queue") : undefined;
}

function checkOption(
  option: string,
  value: unknown,
  expected: string,
  isValid: (value: number) => boolean,
): void {
  if (typeof value === "number" && isValid(value)) return;
  throw new TypeError(
    `Expected ${expected} for ${option} but received ${inspect(value)} of type ${typeof value}`,
  );
}
