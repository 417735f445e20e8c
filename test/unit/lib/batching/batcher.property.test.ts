import fc from "fast-check";
import { Batcher } from "../../../../lib/batching/batcher.ts";
import type { SettledItem } from "../../../../lib/batching/options.ts";
import { FixedSlots } from "../../../../lib/batching/slots.ts";
import { EngineCrashedError, errorCode } from "../../../../lib/errors.ts";
import type { DispatchReason } from "../../../../lib/types.ts";
import { FakeClock } from "../../../../testkit/fake-clock.ts";

/**
 * What an item does to the engine: nothing, an `Error` in its own slot, a batch that rejects, an engine that dies by
 * itself or is killed, a `run` that throws.
 */
type Kind = "good" | "slot" | "poison" | "crash" | "killed" | "throw";

interface Arrival {
  /** Since the arrival before. */
  readonly gap: number;
  /** Time for which the event loop is blocked just before, in a scenario where it is. */
  readonly block: number;
  readonly kinds: readonly Kind[];
  readonly deadlineIn: number | undefined;
  readonly abortIn: number | undefined;
  readonly alone: boolean;
}

interface Scenario {
  readonly maxBatchSize: number;
  readonly maxQueueSize: number;
  readonly maxQueueDelayMs: number;
  readonly concurrency: number;
  readonly latencyTargetMs: number | undefined;
  readonly blocking: boolean;
  readonly arrivals: readonly Arrival[];
  /** Of the first, second … batch; used in a circle. */
  readonly durations: readonly number[];
  readonly drainAt: number;
}

const scenario: fc.Arbitrary<Scenario> = fc.record({
  maxBatchSize: fc.integer({ min: 1, max: 6 }),
  maxQueueSize: fc.integer({ min: 1, max: 20 }),
  maxQueueDelayMs: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 20 })),
  concurrency: fc.integer({ min: 1, max: 3 }),
  latencyTargetMs: fc.option(fc.integer({ min: 1, max: 30 }), { nil: undefined }),
  blocking: fc.boolean(),
  arrivals: fc.array(
    fc.record({
      gap: fc.nat(8),
      block: fc.oneof({ weight: 9, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(20) }),
      kinds: fc.array(
        fc.oneof(
          { weight: 16, arbitrary: fc.constant<Kind>("good") },
          { weight: 3, arbitrary: fc.constantFrom<Kind>("slot", "poison", "crash", "killed", "throw") },
        ),
        { maxLength: 10 },
      ),
      deadlineIn: fc.option(fc.nat(40), { nil: undefined }),
      abortIn: fc.option(fc.nat(30), { nil: undefined, freq: 2 }),
      alone: fc.oneof(
        { weight: 8, arbitrary: fc.constant(false) },
        { weight: 1, arbitrary: fc.constant(true) },
      ),
    }),
    { maxLength: 30, size: "medium" },
  ),
  durations: fc.array(fc.integer({ min: 1, max: 15 }), { minLength: 1, maxLength: 10 }),
  drainAt: fc.nat(200),
});

interface Run {
  readonly items: readonly Item[];
  readonly startedAt: number;
  readonly othersRunning: number;
  /** The bound on the batch size when it left. */
  readonly limit: number;
  readonly draining: boolean;
  /** Whether the item next in the queue, or the only one, has to run alone. */
  readonly cut: boolean;
  endedAt: number;
  failed: boolean;
  /** The engine died under it. */
  died: boolean;
}

interface Item {
  readonly id: string;
  readonly kind: Kind;
  readonly request: Request;
  /** Every batch it was in, in their order. */
  readonly runs: Run[];
}

interface Request {
  readonly items: Item[];
  readonly submittedAt: number;
  readonly deadline: number;
  readonly alone: boolean;
  abortedAt: number;
  results: readonly SettledItem<string>[] | undefined;
  settledAt: number;
}

const NEVER = Number.POSITIVE_INFINITY;
const DEATHS: ReadonlySet<Kind> = new Set(["crash", "killed"]);
const isBad = ({ kind }: Item) => kind === "poison" || kind === "throw" || DEATHS.has(kind);
const deathsAlone = ({ runs }: Item) => runs.filter(({ died, items }) => died && items.length === 1).length;
const answerTo = ({ id }: Item) => `answer to ${id}`;

/** Takes a batcher through a scenario and compares it at every step with a model that knows only the contract. */
class World {
  readonly #scenario: Scenario;
  readonly #clock = new FakeClock();
  readonly #batcher: Batcher<Item, string>;
  /** Those that were admitted, or came too late to be. */
  readonly #requests: Request[] = [];
  /** Oldest first; those that expired since the last check are still among them. */
  #waiting: Item[] = [];
  /** Items of failed batches that were not computed again; those that expired or were cancelled still among them. */
  #suspects: Item[] = [];
  readonly #running = new Set<Run>();
  #runs = 0;
  #succeeded = 0;
  #draining = false;
  #drained = false;
  /** Whether a slot was free when nothing was left to do at the moment checked last. */
  #slotWasFree = true;
  readonly #broken = new Set<string>();

  constructor(scenario: Scenario) {
    this.#scenario = scenario;
    this.#batcher = new Batcher({
      ...scenario,
      slots: new FixedSlots(scenario.concurrency),
      name: "model",
      clock: this.#clock,
      run: (items: readonly Item[]) => this.#run(items),
    });
  }

  /** Plays the scenario to its end; resolves to the claims that did not hold. */
  async play(): Promise<string[]> {
    let at = 0;
    for (const arrival of this.#scenario.arrivals) {
      at += arrival.gap;
      this.#clock.setTimeout(() => this.#arrive(arrival), at);
    }
    this.#clock.setTimeout(() => this.#drain(), this.#scenario.drainAt);
    while (await this.#clock.step()) if (!this.#clock.overdue) this.#checkMoment();
    this.#checkEnd();
    return [...this.#broken];
  }

  #claim(claim: string, holds: boolean): void {
    if (!holds) this.#broken.add(claim);
  }

  #arrive({ block, kinds, deadlineIn = NEVER, abortIn, alone }: Arrival): void {
    if (this.#scenario.blocking) this.#clock.block(block);
    const now = this.#clock.now();
    const deadline = now + deadlineIn;
    const request: Request = {
      items: [],
      submittedAt: now,
      deadline,
      alone,
      abortedAt: NEVER,
      results: undefined,
      settledAt: NEVER,
    };
    for (const [i, kind] of kinds.entries()) {
      request.items.push({ id: `${this.#requests.length}.${i}`, kind, request, runs: [] });
    }
    const controller = new AbortController();
    if (abortIn === 0) controller.abort();
    else if (abortIn !== undefined) {
      this.#clock.setTimeout(() => {
        request.abortedAt = this.#clock.now();
        this.#waiting = this.#waiting.filter((item) => item.request !== request);
        controller.abort();
      }, abortIn);
    }

    const before = this.#batcher.stats;
    const gone = now >= deadline || controller.signal.aborted;
    const expected = this.#draining
      ? "DRAINING"
      : kinds.length > this.#scenario.maxQueueSize
        ? "PAYLOAD_TOO_LARGE"
        : !gone && kinds.length > this.#scenario.maxQueueSize - before.queued
          ? "QUEUE_FULL"
          : "admitted";
    if (expected === "admitted") {
      this.#requests.push(request);
      if (controller.signal.aborted) request.abortedAt = now;
      if (!gone) this.#waiting.push(...request.items);
    }
    this.#batcher
      .submit(request.items, {
        alone,
        signal: controller.signal,
        deadline: deadlineIn === NEVER ? undefined : deadline,
      })
      .then((results) => {
        this.#claim("a request that may not be admitted is refused", expected === "admitted");
        request.results = results;
        request.settledAt = this.#clock.now();
      })
      .catch((error) => {
        this.#claim("a refusal says why", errorCode(error) === expected);
        this.#claim("a refusal comes at once", this.#clock.now() === now);
      });
    if (expected !== "admitted") {
      const { queued, inFlight } = this.#batcher.stats;
      this.#claim(
        "a refused request leaves nothing",
        queued === before.queued && inFlight === before.inFlight,
      );
    }
  }

  #drain(): void {
    this.#draining = true;
    this.#batcher.drain().then(() => {
      const { queued, inFlight } = this.#batcher.stats;
      this.#claim(
        "drain resolves when nothing is waiting or running",
        queued + inFlight + this.#running.size === 0,
      );
      this.#drained = true;
    });
  }

  #isEmpty(): boolean {
    return this.#running.size === 0 && this.#requests.every(({ results }) => results !== undefined);
  }

  /** The engine. */
  #run(items: readonly Item[]): Promise<(string | Error)[]> {
    const now = this.#clock.now();
    const { maxBatchSize, concurrency, durations } = this.#scenario;
    const limit = this.#batcher.stats.batchLimit;
    this.#claim("a batch has at least one item", items.length >= 1);
    this.#claim("a batch is not larger than maxBatchSize", items.length <= maxBatchSize);
    this.#claim("no more batches than concurrency are in the engine", this.#running.size < concurrency);
    this.#claim(
      "nothing expired is computed",
      items.every(({ request }) => request.deadline > now),
    );
    this.#claim(
      "nothing cancelled is computed",
      items.every(({ request }) => request.abortedAt > now),
    );

    this.#waiting = this.#waiting.filter(({ request }) => request.deadline > now);
    const failed = items[0]?.runs.at(-1);
    if (failed) {
      this.#claim(
        "only items of one failed batch are computed again",
        items.every(({ runs }) => runs.at(-1) === failed && failed.failed),
      );
      this.#claim("a half is at most half", items.length <= Math.ceil(failed.items.length / 2));
      this.#claim("after a death each is tried alone", !failed.died || items.length === 1);
      this.#suspects = this.#suspects.filter((item) => !items.includes(item));
    } else {
      this.#claim("a batch is not larger than the bound in force", items.length <= limit);
      const left = this.#suspects.filter(({ request }) => request.deadline > now && request.abortedAt > now);
      this.#claim("suspects go before what is queued", left.length === 0);
      this.#suspects = [];
      this.#claim(
        "items leave the queue in the order they came",
        items.every((item, i) => item === this.#waiting[i]),
      );
      this.#claim(
        "an item that has to be alone is alone",
        items.length === 1 || items.every(({ request }) => !request.alone),
      );
      this.#waiting.splice(0, items.length);
    }
    const next = this.#waiting[0];
    const run: Run = {
      items,
      startedAt: now,
      othersRunning: this.#running.size,
      limit,
      draining: this.#draining,
      cut: items.some(({ request }) => request.alone) || next?.request.alone === true,
      endedAt: NEVER,
      failed: false,
      died: false,
    };
    for (const { runs } of items) runs.push(run);
    const bad = items.find(isBad);
    if (bad?.kind === "throw") {
      run.endedAt = now;
      this.#fail(run);
      throw new Error("thrown");
    }
    this.#running.add(run);
    return new Promise((resolve, reject) => {
      const end = () => {
        this.#running.delete(run);
        run.endedAt = this.#clock.now();
        if (bad) {
          run.died = DEATHS.has(bad.kind);
          this.#fail(run);
          reject(
            run.died
              ? new EngineCrashedError("model", "gone", { killed: bad.kind === "killed" })
              : new Error("poisoned"),
          );
        } else {
          this.#succeeded++;
          resolve(items.map((item) => (item.kind === "slot" ? new Error("bad slot") : answerTo(item))));
        }
      };
      this.#clock.setTimeout(end, durations[this.#runs++ % durations.length] ?? 1);
    });
  }

  #fail(run: Run): void {
    run.failed = true;
    if (!this.#ends(run)) this.#suspects.push(...run.items);
  }

  /** Whether a batch that failed is not tried again: it was one item, and if an engine died, the second one under it alone. */
  #ends({ items, died }: Run): boolean {
    return items.length === 1 && (!died || items.every((item) => deathsAlone(item) > 1));
  }

  /** Called when nothing is left to do at this moment. */
  #checkMoment(): void {
    const now = this.#clock.now();
    const { maxQueueSize, maxQueueDelayMs, concurrency } = this.#scenario;
    const expired = this.#waiting.filter(({ request }) => request.deadline <= now);
    this.#waiting = this.#waiting.filter(({ request }) => request.deadline > now);
    const waiting = this.#waiting;
    const { queued, inFlight, batchLimit } = this.#batcher.stats;
    const running = [...this.#running].reduce((sum, { items }) => sum + items.length, 0);
    this.#claim("the queue holds what was admitted and has not left", queued === waiting.length);
    this.#claim("the queue is not longer than maxQueueSize", queued <= maxQueueSize);
    this.#claim(
      "what is running is in flight",
      inFlight >= running && inFlight <= running + this.#suspects.length,
    );
    if (!this.#scenario.blocking) {
      this.#claim(
        "nothing expires in the queue while a slot is free",
        expired.length === 0 || !this.#slotWasFree,
      );
    }

    const slotFree = this.#running.size < concurrency;
    this.#slotWasFree = slotFree;
    const oldest = waiting[0];
    if (slotFree && oldest) {
      const head = waiting.slice(0, batchLimit);
      this.#claim("an idle engine leaves nothing in the queue", this.#running.size > 0);
      this.#claim("without a delay a free slot leaves nothing in the queue", maxQueueDelayMs > 0);
      this.#claim(
        "a full batch does not wait",
        head.length < batchLimit && head.every(({ request }) => !request.alone),
      );
      this.#claim(
        "nothing waits longer than the delay for company",
        now < oldest.request.submittedAt + maxQueueDelayMs,
      );
      this.#claim("nothing waits for company while draining", !this.#draining);
      if (this.#succeeded === 0) {
        const hasDeadline = head.some(({ request }) => request.deadline < NEVER);
        this.#claim(
          "before the first measurement an item with a deadline does not wait for company",
          !hasDeadline,
        );
      }
    }
    this.#claim(
      "drain resolves as soon as nothing is left",
      this.#drained === (this.#draining && this.#isEmpty()),
    );
  }

  #checkEnd(): void {
    this.#claim("drain resolves", this.#drained);
    for (const request of this.#requests) {
      const { items, results } = request;
      this.#claim("every request is answered", results !== undefined);
      this.#claim("a request has one answer for each item", results?.length === items.length);
      for (const [i, item] of items.entries()) {
        const result = results?.[i];
        if (result) this.#checkAnswer(item, result);
      }
      if (items.length > 0 && items.every(({ runs }) => runs.length === 0) && !this.#scenario.blocking) {
        const left = Math.min(request.deadline, request.abortedAt);
        this.#claim("what expires or is cancelled while it waits leaves at once", request.settledAt === left);
      }
    }
  }

  #checkAnswer(item: Item, result: SettledItem<string>): void {
    const { request, runs, kind } = item;
    const last = runs.at(-1);
    const first = runs[0];
    this.#claim(
      "an item is computed again only if its batch failed",
      runs.slice(0, -1).every((run) => run.failed),
    );
    const final = last && (!last.failed || this.#ends(last)) ? last : undefined;
    if (!final || !first) {
      const code = result.ok ? "none" : errorCode(result.error);
      const leftInTime =
        (code === "CANCELLED" && request.abortedAt <= request.settledAt) ||
        (code === "DEADLINE_EXCEEDED" && request.deadline <= request.settledAt);
      this.#claim("what is not computed to an end expired or was cancelled", leftInTime);
      return;
    }
    if (final.failed || kind === "slot") {
      this.#claim("only the bad items fail", kind !== "good");
      const codes: Partial<Record<Kind, string>> = { crash: "POISON_REQUEST", killed: "ENGINE_CRASHED" };
      const code = codes[kind] ?? "PREDICTION_FAILED";
      this.#claim("a bad item gets its own error", !result.ok && errorCode(result.error) === code);
      return;
    }
    this.#claim("a good item is answered", result.ok);
    if (!result.ok) return;
    this.#claim("an item gets its own answer", result.value === answerTo(item));
    this.#claim(
      "the batch size is that of the batch which gave the answer",
      result.batchSize === final.items.length,
    );
    const { queueMs, computeMs } = result;
    this.#claim(
      "queue time is from submit until that batch left",
      queueMs === final.startedAt - request.submittedAt,
    );
    this.#claim("compute time is that batch's", computeMs === final.endedAt - final.startedAt);
    this.#claim("the reason is true", this.#isTrue(result.dispatchReason, first));
  }

  /** Whether a batch could leave the queue for this reason. */
  #isTrue(reason: DispatchReason, { items, startedAt, othersRunning, limit, draining, cut }: Run): boolean {
    const { maxQueueDelayMs } = this.#scenario;
    const full = items.length === limit || cut;
    const idle = othersRunning === 0 || maxQueueDelayMs === 0 || draining;
    const oldest = Math.min(...items.map(({ request }) => request.submittedAt));
    const delayed = startedAt - oldest >= maxQueueDelayMs;
    if (reason === "full") return full;
    if (reason === "idle") return !full && idle;
    if (reason === "delay") return !full && !idle && delayed;
    return !full && !idle && !delayed && items.some(({ request }) => request.deadline < NEVER);
  }
}

describe("Batcher, whatever arrives", () => {
  test("nothing is lost, answered twice or out of order, and every bound holds", async () => {
    await fc.assert(
      fc.asyncProperty(scenario, async (played) => {
        expect(await new World(played).play()).toEqual([]);
      }),
      { numRuns: 500 },
    );
  });
});
