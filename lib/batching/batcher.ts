import { inspect, types } from "node:util";
import {
  CancelledError,
  DeadlineExceededError,
  DrainingError,
  type EngineCrashedError,
  PoisonError,
  PredictionFailedError,
  QueueFullError,
  ServingError,
} from "../errors.ts";
import type { DispatchReason } from "../types.ts";
import { type Consequence, consequence, type Failure } from "./bisection.ts";
import { decide } from "./decision.ts";
import { Fifo, type Place } from "./fifo.ts";
import { type BatcherOptions, checkedOptions, type SettledItem, type SubmitOptions } from "./options.ts";
import { BatchPolicies } from "./policy.ts";
import type { Slot } from "./slots.ts";

interface Request<I, O> {
  /** Where its items stand in the queue, also of those that have left it. */
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
  /** Engines that died under its one item, when it was alone. */
  readonly deathsAlone: number;
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
 * - *suspect*: in one part of a batch that failed. Goes before anything that waits, the first part first. Expired or
 *   cancelled ones are left out when the part leaves.
 *
 * An item is settled exactly once, and never computed at or after its deadline.
 *
 * ## A free slot
 *
 * Whenever something changed, every free slot of the engine is offered to, in this order:
 * 1. the parts of failed batches ({@link consequence});
 * 2. the head of the queue: the oldest items, up to the bound on the batch size, none of them `alone` unless it is
 *    the only one. Whether they leave, why, or when at the latest, says {@link decide}.
 *
 * So the engine is never idle while an item waits, and items leave the queue in the order they came.
 *
 * ## The batcher
 *
 * *open* ─ `drain()` ► *draining* ─ last item settled ► *drained*. There is no way back: it refuses new work from
 * `drain()` on.
 */
export class Batcher<I, O, S extends Slot = Slot> {
  readonly #options: ReturnType<typeof checkedOptions<I, O, S>>;
  readonly #policies: BatchPolicies;
  readonly #queue = new Fifo<Item<I, O>>();
  /** Parts of failed batches, the next on top. */
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
  constructor(options: BatcherOptions<I, O, S>) {
    this.#options = checkedOptions(options);
    this.#policies = new BatchPolicies(this.#options.latencyTargetMs);
    this.#options.slots.onFree = () => this.#fillSlots();
  }

  /** Items waiting; items suspect or running; and the bound on the batch size in force now. */
  get stats(): { readonly queued: number; readonly inFlight: number; readonly batchLimit: number } {
    return {
      queued: this.#queue.size,
      inFlight: this.#unsettled - this.#queue.size,
      batchLimit: this.#policies.limit(this.#options.maxBatchSize),
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
    const { name, maxQueueSize, clock } = this.#options;
    if (this.#drained) throw new DrainingError();
    if (inputs.length > maxQueueSize) {
      throw new ServingError(
        "PAYLOAD_TOO_LARGE",
        `Expected at most ${maxQueueSize} items in one request to ${name} but received ${inputs.length}`,
      );
    }
    const queuedAt = clock.now();
    const error = refusal({ deadline, signal }, queuedAt);
    if (error) return inputs.map(() => ({ ok: false, error }));
    if (inputs.length > maxQueueSize - this.#queue.size) {
      throw new QueueFullError(name, maxQueueSize);
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

    const onAbort = () => this.#withdraw(request, cancellation(signal));
    signal?.addEventListener("abort", onAbort);
    if (deadline < Number.POSITIVE_INFINITY) this.#watchDeadline(request);
    this.#fillSlots();
    const results = await promise;
    signal?.removeEventListener("abort", onAbort);
    clock.clearTimeout(request.expiry);
    return results;
  }

  /** Settles everything that is not in the engine with `error`: there is nobody to compute it. */
  reject(error: ServingError): void {
    for (const { items } of this.#suspects.splice(0)) {
      for (const item of items) this.#settle(item, { ok: false, error });
    }
    for (const place of this.#queue) {
      this.#queue.remove(place);
      this.#settle(place.value, { ok: false, error });
    }
    this.#fillSlots();
  }

  /** Refuses new work from now on; resolves when nothing is waiting, suspect or running. */
  drain(): Promise<void> {
    this.#drained ??= Promise.withResolvers<void>();
    this.#fillSlots();
    return this.#drained.promise;
  }

  #watchDeadline(request: Request<I, O>): void {
    const { clock } = this.#options;
    const left = request.deadline - clock.now();
    if (left > 0) request.expiry = clock.setTimeout(() => this.#watchDeadline(request), left);
    else this.#withdraw(request, new DeadlineExceededError("queue"));
  }

  /** Takes what still waits of a request out of the queue. */
  #withdraw(request: Request<I, O>, error: Error): void {
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
    while (this.#suspects.length > 0 || this.#queue.size > 0) {
      const slot = this.#options.slots.take();
      if (!slot) break;
      const batch = this.#nextSuspects() ?? this.#nextQueued(slot);
      if (!batch) {
        slot.release();
        break;
      }
      void this.#compute(batch, slot);
    }
    if (this.#unsettled === 0) this.#drained?.resolve();
  }

  #nextSuspects(): Batch<I, O> | undefined {
    const now = this.#options.clock.now();
    for (let part = this.#suspects.pop(); part; part = this.#suspects.pop()) {
      const items = part.items.filter((item) => !this.#dismiss(item, now));
      if (items.length > 0) return { ...part, items };
    }
    return undefined;
  }

  /** Takes the head of the queue; undefined if it is empty or has to wait (a timer is set then). */
  #nextQueued({ kind }: S): Batch<I, O> | undefined {
    const { maxBatchSize, maxQueueDelayMs, slots, clock } = this.#options;
    const now = clock.now();
    const policy = this.#policies.of(kind);
    const { places, full } = this.#head(policy.limit(maxBatchSize), now);
    if (places.length === 0) return undefined;
    const requests = places.map(({ value }) => value.request);
    const decision = decide({
      now,
      head: {
        size: places.length,
        full,
        queuedAt: Math.min(...requests.map(({ queuedAt }) => queuedAt)),
        deadline: Math.min(...requests.map(({ deadline }) => deadline)),
      },
      running: this.#running,
      slots: slots.size,
      unsettled: this.#unsettled,
      maxQueueDelayMs,
      draining: this.#drained !== undefined,
      takesMs: policy.estimate(places.length),
    });
    if ("wakeAt" in decision) {
      clock.clearTimeout(this.#wake);
      this.#wake = clock.setTimeout(() => this.#fillSlots(), decision.wakeAt - now);
      return undefined;
    }
    const leaving = places.slice(0, decision.size);
    for (const place of leaving) this.#queue.remove(place);
    return {
      items: leaving.map(({ value }) => value),
      reason: decision.leave,
      bisected: false,
      deathsAlone: 0,
    };
  }

  /** The oldest items that could be one batch, and whether it could not be larger. Those that expired are dismissed. */
  #head(limit: number, now: number): { readonly places: Place<Item<I, O>>[]; readonly full: boolean } {
    const places: Place<Item<I, O>>[] = [];
    for (const place of this.#queue) {
      // Its timer may be late: whatever blocked the event loop delays timers, too.
      if (this.#dismiss(place.value, now)) {
        this.#queue.remove(place);
        continue;
      }
      const { alone } = place.value.request;
      if (!alone || places.length === 0) places.push(place);
      if (alone || places.length === limit) return { places, full: true };
    }
    return { places, full: false };
  }

  /** Settles an item that must not be computed any more; false if it may be. */
  #dismiss(item: Item<I, O>, now: number): boolean {
    const error = refusal(item.request, now);
    if (error) this.#settle(item, { ok: false, error });
    return error !== undefined;
  }

  async #compute(batch: Batch<I, O>, slot: S): Promise<void> {
    const { run, clock, onBatch } = this.#options;
    const { items, reason, bisected, deathsAlone } = batch;
    const startedAt = clock.now();
    let results: readonly (O | Error)[] = [];
    let error: Error | undefined;
    let next: Consequence = "failed";
    this.#running++;
    const abandoned = new Abandonment(items.map(({ request }) => request.signal));
    try {
      const inputs = items.map(({ input }) => input);
      const scope = { deadline: Math.max(...deadlines(items)), signal: abandoned.signal };
      results = await run(inputs, slot, scope);
      error = this.#brokenContract(results, items.length);
    } catch (thrown) {
      error = types.isNativeError(thrown) ? thrown : new Error(inspect(thrown));
      next = consequence({ size: items.length, how: howItFailed(error), deathsAlone });
    }
    abandoned.unwatch();
    this.#running--;
    const computeMs = clock.now() - startedAt;
    if (!error) this.#policies.of(slot.kind).observe(items.length, computeMs);
    if (typeof next === "object") {
      this.#suspect(batch, next.tryAgain, deathsAlone + (items.length === 1 ? 1 : 0));
    } else {
      if (next === "poison") error = new PoisonError(this.#options.name);
      this.#answer(batch, error ?? results, { startedAt, computeMs });
    }
    slot.release();
    this.#fillSlots();
    const oldest = Math.min(...items.map(({ request }) => request.queuedAt));
    onBatch({ size: items.length, reason, bisected, queueMs: startedAt - oldest, computeMs, error });
  }

  /** Puts the items before all that wait, in parts of at most `size`. */
  #suspect({ items, reason }: Batch<I, O>, size: number, deathsAlone: number): void {
    for (let start = Math.floor((items.length - 1) / size) * size; start >= 0; start -= size) {
      this.#suspects.push({ items: items.slice(start, start + size), reason, bisected: true, deathsAlone });
    }
  }

  /** @param outcome a result for each item, or what they all failed with */
  #answer(
    { items, reason }: Batch<I, O>,
    outcome: readonly (O | Error)[] | Error,
    { startedAt, computeMs }: { readonly startedAt: number; readonly computeMs: number },
  ): void {
    for (const [index, item] of items.entries()) {
      const output = types.isNativeError(outcome) ? outcome : (outcome as (O | Error)[])[index];
      this.#settle(
        item,
        types.isNativeError(output)
          ? { ok: false, error: this.#asServingError(output) }
          : {
              ok: true,
              value: output as O,
              batchSize: items.length,
              dispatchReason: reason,
              queueMs: startedAt - item.request.queuedAt,
              computeMs,
            },
      );
    }
  }

  /** What is wrong with `run`'s results as such. It is no input's fault, so nothing is tried again. */
  #brokenContract(results: unknown, size: number): Error | undefined {
    if (Array.isArray(results) && results.length === size) return undefined;
    const received = Array.isArray(results) ? results.length : `a value of type ${typeof results}`;
    return new ServingError(
      "INTERNAL",
      `Expected ${size} results of ${this.#options.name}, one for each input, but received ${received}`,
    );
  }

  #asServingError(error: Error): ServingError {
    if (error instanceof ServingError) return error;
    const failure = new PredictionFailedError(this.#options.name, error.message);
    failure.cause = error;
    return failure;
  }
}

/** Of what computes elsewhere: it has no time, or nobody waits for it any more. */
const NOT_COMPUTED: ReadonlySet<string> = new Set(["MODEL_UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"]);

function howItFailed(error: Error | undefined): Failure["how"] {
  if (error instanceof ServingError && NOT_COMPUTED.has(error.type)) return "not computed";
  if (!(error instanceof ServingError) || error.type !== "ENGINE_CRASHED") return "refused";
  return (error as EngineCrashedError).killed ? "killed" : "crashed";
}

/** A signal that is aborted when all of several are. */
class Abandonment {
  readonly #controller = new AbortController();
  readonly #signals: readonly (AbortSignal | undefined)[];
  readonly #look = () => {
    if (this.#signals.every((signal) => signal?.aborted)) this.#controller.abort(new CancelledError());
  };

  constructor(signals: readonly (AbortSignal | undefined)[]) {
    this.#signals = signals;
    for (const signal of new Set(signals)) signal?.addEventListener("abort", this.#look);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  unwatch(): void {
    for (const signal of new Set(this.#signals)) signal?.removeEventListener("abort", this.#look);
  }
}

function deadlines<I, O>(items: readonly Item<I, O>[]): number[] {
  return items.map(({ request }) => request.deadline);
}

/** Why an item of such a request must not be computed, if so. */
function refusal(
  { deadline, signal }: Pick<Request<unknown, unknown>, "deadline" | "signal">,
  now: number,
): Error | undefined {
  if (signal?.aborted) return cancellation(signal);
  return now >= deadline ? new DeadlineExceededError("queue") : undefined;
}

/** What a signal was aborted with, if that is fit for a client. */
function cancellation(signal: AbortSignal | undefined): Error {
  return signal?.reason instanceof ServingError ? signal.reason : new CancelledError();
}
