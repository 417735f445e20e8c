import { getEventListeners } from "node:events";
import { Batcher } from "../../../../lib/batching/batcher.ts";
import type { BatcherOptions, BatchReport, SettledItem } from "../../../../lib/batching/options.ts";
import { FixedSlots, type Slot } from "../../../../lib/batching/slots.ts";
import {
  EngineCrashedError,
  ModelUnavailableError,
  QueueFullError,
  type ServingError,
} from "../../../../lib/errors.ts";
import { FakeClock, settle } from "../../../../testkit/fake-clock.ts";

/** A batcher over an engine that the test finishes by hand: it answers "a" with "A" when told to. */
function setUp({
  concurrency = 1,
  ...options
}: Partial<BatcherOptions<string, string>> & { concurrency?: number } = {}) {
  const clock = new FakeClock();
  const reports: BatchReport[] = [];
  /** Inputs of every batch so far. */
  const batches: string[] = [];
  const running: PromiseWithResolvers<readonly (string | Error)[]>[] = [];
  const batcher = new Batcher<string, string>({
    name: "cat",
    clock,
    slots: new FixedSlots(concurrency),
    onBatch: (report) => void reports.push(report),
    run: (inputs) => {
      batches.push(inputs.join(""));
      const batch = Promise.withResolvers<readonly (string | Error)[]>();
      running.push(batch);
      return batch.promise;
    },
    ...options,
  });
  let finished = 0;
  /** Ends the oldest running batch: with these results, with this failure, or well. */
  const finish = async (outcome?: unknown[] | Error) => {
    const inputs = batches[finished] ?? "";
    const batch = running[finished++];
    if (outcome instanceof Error) batch?.reject(outcome);
    else batch?.resolve((outcome ?? [...inputs.toUpperCase()]) as string[]);
    await settle();
  };
  /** Fails whatever contains `bad`, answers the rest, until the engine is idle. */
  const finishAll = async (bad = "") => {
    while (finished < batches.length) {
      const poisoned = bad !== "" && batches[finished]?.includes(bad);
      await finish(poisoned ? new Error(`cannot do ${bad}`) : undefined);
    }
  };
  return { batcher, clock, reports, batches, finish, finishAll };
}

function values(items: SettledItem<string>[]): string {
  return items.map((item) => (item.ok ? item.value : "-")).join("");
}

function codes(items: SettledItem<string>[]): unknown[] {
  return items.map((item) => (item.ok ? "ok" : (item.error as ServingError).type));
}

describe("Batcher", () => {
  describe("work-conserving", () => {
    test("an idle engine takes what is queued at once", () => {
      const { batcher, batches } = setUp({ maxQueueDelayMs: 1000 });
      void batcher.submit(["a"]);
      expect(batches).toEqual(["a"]);
    });

    test("what comes while the engine is busy goes together as soon as it is free", async () => {
      const { batcher, batches, finish } = setUp({ maxQueueDelayMs: 1000 });
      for (const input of "abcd") void batcher.submit([input]);
      await finish();
      expect(batches).toEqual(["a", "bcd"]);
    });

    test("a second slot waits for company while the first is busy, at most the delay", async () => {
      const { batcher, batches, clock } = setUp({ concurrency: 2, maxQueueDelayMs: 10 });
      void batcher.submit(["a"]);
      void batcher.submit(["b"]);
      await clock.advance(5);
      void batcher.submit(["c"]);
      await clock.advance(4);
      expect(batches).toEqual(["a"]);
      await clock.advance(1);
      expect(batches).toEqual(["a", "bc"]);
    });

    test("a second slot does not wait if its batch is full", () => {
      const { batcher, batches } = setUp({ concurrency: 2, maxQueueDelayMs: 10, maxBatchSize: 2 });
      void batcher.submit(["a"]);
      void batcher.submit(["b", "c", "d"]);
      expect(batches).toEqual(["a", "bc"]);
    });

    test("a second slot does not wait longer than a deadline allows", async () => {
      const { batcher, batches, clock, finish } = setUp({ concurrency: 2, maxQueueDelayMs: 1000 });
      void batcher.submit(["a"]);
      await clock.advance(30);
      await finish();
      void batcher.submit(["b"]);
      const answer = batcher.submit(["c"], { deadline: clock.now() + 100 });
      await clock.advance(69);
      expect(batches).toEqual(["a", "b"]);
      await clock.advance(1);
      expect(batches).toEqual(["a", "b", "c"]);
      await finish();
      await finish();
      expect(await answer).toMatchObject([{ dispatchReason: "deadline", queueMs: 70 }]);
    });

    test("before any batch was measured, an item with a deadline does not wait", () => {
      const { batcher, batches } = setUp({ concurrency: 2, maxQueueDelayMs: 1000 });
      void batcher.submit(["a"]);
      void batcher.submit(["b"], { deadline: 5000 });
      expect(batches).toEqual(["a", "b"]);
    });

    test("slots without a delay share what there is evenly", async () => {
      const { batcher, batches, finish } = setUp({ concurrency: 2 });
      void batcher.submit(["a"]);
      void batcher.submit([..."bcdef"]);
      expect(batches).toEqual(["a", "bcd"]);
      await finish();
      expect(batches).toEqual(["a", "bcd", "ef"]);
    });

    test("a full batch is no less full for the other slots", () => {
      const { batcher, batches } = setUp({ concurrency: 2, maxBatchSize: 4 });
      void batcher.submit(["a"]);
      void batcher.submit([..."bcde"]);
      expect(batches).toEqual(["a", "bcde"]);
    });

    test("no second slot is used where there is none", async () => {
      const { batcher, batches, clock } = setUp({ maxQueueDelayMs: 10 });
      void batcher.submit(["a"]);
      void batcher.submit(["b"]);
      await clock.advance(100);
      expect(batches).toEqual(["a"]);
    });
  });

  describe("items, not requests", () => {
    test("a large request is split, and its answers come back in order", async () => {
      const { batcher, batches, finishAll } = setUp({ maxBatchSize: 3 });
      const answer = batcher.submit([..."abcdefgh"]);
      await finishAll();
      expect(batches).toEqual(["abc", "def", "gh"]);
      expect(values(await answer)).toBe("ABCDEFGH");
    });

    test("requests share batches, and each gets its own answers", async () => {
      const { batcher, batches, finishAll } = setUp({ maxBatchSize: 4 });
      const answers = ["a", "bc", "def"].map((inputs) => batcher.submit([...inputs]));
      await finishAll();
      expect(batches).toEqual(["a", "bcde", "f"]);
      expect((await Promise.all(answers)).map(values)).toEqual(["A", "BC", "DEF"]);
    });

    test("a suspected item runs in a batch of its own", async () => {
      const { batcher, batches, finishAll } = setUp();
      void batcher.submit(["a"]);
      void batcher.submit(["b"]);
      void batcher.submit(["c", "d"], { alone: true });
      void batcher.submit(["e", "f"]);
      await finishAll();
      expect(batches).toEqual(["a", "b", "c", "d", "ef"]);
    });

    test("an empty request has an empty answer and never reaches the engine", async () => {
      const { batcher, batches } = setUp();
      expect(await batcher.submit([])).toEqual([]);
      expect(batches).toEqual([]);
    });
  });

  describe("bounded queue", () => {
    test("a request that does not fit is refused at once and whole", async () => {
      const { batcher, finishAll } = setUp({ maxQueueSize: 3 });
      void batcher.submit(["a"]);
      const waiting = batcher.submit(["b", "c"]);
      await expect(batcher.submit(["d", "e"])).rejects.toMatchObject({ type: "QUEUE_FULL", code: 503 });
      expect(batcher.stats).toMatchObject({ queued: 2, inFlight: 1 });
      const last = batcher.submit(["f"]);
      await finishAll();
      expect(values(await waiting)).toBe("BC");
      expect(values(await last)).toBe("F");
    });

    test("a request that could never fit is refused for good, with both numbers", async () => {
      const { batcher } = setUp({ maxQueueSize: 3 });
      await expect(batcher.submit([..."abcd"])).rejects.toMatchObject({
        type: "PAYLOAD_TOO_LARGE",
        retryable: false,
        message: "Expected at most 3 items in one request to cat but received 4",
      });
    });
  });

  describe("deadlines", () => {
    test("an expired item leaves before compute, at its deadline, and frees its place", async () => {
      const { batcher, batches, clock, finishAll } = setUp({ maxQueueSize: 2 });
      void batcher.submit(["a"]);
      const late = batcher.submit(["b", "c"], { deadline: 10 });
      await clock.advance(10);
      expect(codes(await late)).toEqual(["DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"]);
      expect(batcher.stats.queued).toBe(0);
      await finishAll();
      expect(batches).toEqual(["a"]);
    });

    test("an item that expired while the event loop was blocked is not computed either", async () => {
      const { batcher, batches, clock, finishAll } = setUp();
      void batcher.submit(["a"]);
      const late = batcher.submit(["b"], { deadline: 10 });
      const other = batcher.submit(["c"]);
      clock.block(20);
      await finishAll();
      expect(batches).toEqual(["a", "c"]);
      expect(codes(await late)).toEqual(["DEADLINE_EXCEEDED"]);
      expect(values(await other)).toBe("C");
    });

    test("a request that comes after its deadline is neither queued nor refused for a full queue", async () => {
      const { batcher, batches, clock } = setUp({ maxQueueSize: 1 });
      await clock.advance(10);
      void batcher.submit(["a"]);
      void batcher.submit(["b"]);
      expect(codes(await batcher.submit(["c"], { deadline: 10 }))).toEqual(["DEADLINE_EXCEEDED"]);
      expect(batches).toEqual(["a"]);
    });

    test("an item in the engine is answered even after its deadline", async () => {
      const { batcher, clock, finish } = setUp();
      const answer = batcher.submit(["a"], { deadline: 10 });
      await clock.advance(20);
      await finish();
      expect(values(await answer)).toBe("A");
    });

    test("a timer that comes early does not cut a deadline short", async () => {
      const clock = new FakeClock();
      const early = {
        now: () => clock.now(),
        setTimeout: (fn: () => void, ms: number) => clock.setTimeout(fn, ms > 1 ? ms - 1 : ms),
        clearTimeout: (handle: unknown) => clock.clearTimeout(handle),
      };
      const { batcher } = setUp({ clock: early });
      void batcher.submit(["a"]);
      let answered = false;
      const answer = batcher.submit(["b"], { deadline: 10 }).finally(() => {
        answered = true;
      });
      await clock.advance(9);
      expect(answered).toBe(false);
      await clock.advance(1);
      expect(codes(await answer)).toEqual(["DEADLINE_EXCEEDED"]);
    });
  });

  describe("cancellation", () => {
    test("a cancelled request leaves the queue at once and frees its places", async () => {
      const { batcher, batches, finishAll } = setUp({ maxQueueSize: 2 });
      const controller = new AbortController();
      void batcher.submit(["a"]);
      const cancelled = batcher.submit(["b", "c"], { signal: controller.signal });
      controller.abort();
      expect(batcher.stats.queued).toBe(0);
      expect(codes(await cancelled)).toEqual(["CANCELLED", "CANCELLED"]);
      void batcher.submit(["d", "e"]);
      await finishAll();
      expect(batches).toEqual(["a", "de"]);
    });

    test("what is in the engine is not cancelled", async () => {
      const { batcher, finish } = setUp({ maxBatchSize: 2 });
      const controller = new AbortController();
      const answer = batcher.submit([..."abc"], { signal: controller.signal });
      controller.abort();
      expect(batcher.stats).toMatchObject({ queued: 0, inFlight: 2 });
      await finish();
      expect(codes(await answer)).toEqual(["ok", "ok", "CANCELLED"]);
    });

    test("a batch is told when all who wait for it have gone, and not before", async () => {
      const signals: AbortSignal[] = [];
      const { batcher } = setUp({
        run: (_, __, { signal }) => {
          signals.push(signal);
          return Promise.withResolvers<readonly string[]>().promise;
        },
        maxBatchSize: 2,
        concurrency: 2,
      });
      const one = new AbortController();
      void batcher.submit(["a", "b"], { signal: one.signal });
      void batcher.submit(["c", "d"]);
      one.abort();
      // The second batch has nobody who could hang up.
      expect(signals.map(({ aborted }) => aborted)).toEqual([true, false]);
    });

    test("a batch that was not computed fails as a whole, and is not tried again", async () => {
      const { batcher, batches, finish } = setUp({ maxBatchSize: 4 });
      const answer = batcher.submit([..."abcd"]);
      await finish(new ModelUnavailableError("cat"));
      expect(codes(await answer)).toEqual(new Array(4).fill("MODEL_UNAVAILABLE"));
      expect(batches).toEqual(["abcd"]);
    });

    test("a request whose caller has gone before is not computed", async () => {
      const { batcher, batches } = setUp();
      expect(codes(await batcher.submit(["a"], { signal: AbortSignal.abort() }))).toEqual(["CANCELLED"]);
      expect(batches).toEqual([]);
    });

    test("an answered request leaves no timer and no listener behind", async () => {
      const { batcher, clock, finish } = setUp();
      const { signal } = new AbortController();
      const answer = batcher.submit(["a"], { signal, deadline: 1e6 });
      // The request's own, and its batch's.
      expect([clock.pending, getEventListeners(signal, "abort").length]).toEqual([1, 2]);
      await finish();
      await answer;
      expect([clock.pending, getEventListeners(signal, "abort").length]).toEqual([0, 0]);
    });
  });

  describe("failures", () => {
    test("an error in a slot fails that item only, and the batch is not computed again", async () => {
      const { batcher, batches, finish } = setUp();
      const answer = batcher.submit([..."abc"]);
      const cause = new Error("not a cat");
      await finish(["A", cause, "C"]);
      const items = await answer;
      expect(batches).toEqual(["abc"]);
      expect(codes(items)).toEqual(["ok", "PREDICTION_FAILED", "ok"]);
      expect(items[1]).toMatchObject({ error: { message: "cat failed on this input: not a cat", cause } });
    });

    test("what was in a batch that the engine died under is tried alone; what kills two more fails", async () => {
      const { batcher, batches, finish } = setUp({ maxBatchSize: 4 });
      const first = batcher.submit(["x"]);
      const answers = batcher.submit(["a", "b", "c", "d"]);
      await finish();
      await finish(new EngineCrashedError("m", "gone"));
      await finish();
      await finish();
      await finish(new EngineCrashedError("m", "gone"));
      await finish(new EngineCrashedError("m", "gone"));
      await finish();
      expect(batches).toEqual(["x", "abcd", "a", "b", "c", "c", "d"]);
      expect(codes(await first)).toEqual(["ok"]);
      expect(codes(await answers)).toEqual(["ok", "ok", "POISON_REQUEST", "ok"]);
    });

    test("an item that is alone when the engine dies a second time is to blame", async () => {
      const { batcher, batches, finish } = setUp();
      const answer = batcher.submit(["a"]);
      await finish(new EngineCrashedError("m", "gone"));
      await finish(new EngineCrashedError("m", "gone"));
      expect(batches).toEqual(["a", "a"]);
      expect(codes(await answer)).toEqual(["POISON_REQUEST"]);
    });

    test("an item is answered if the engine dies under it only once", async () => {
      const { batcher, finish } = setUp();
      const answer = batcher.submit(["a"]);
      await finish(new EngineCrashedError("m", "gone"));
      await finish();
      expect(codes(await answer)).toEqual(["ok"]);
    });

    test("an item is not to blame for engines that someone else killed", async () => {
      const { batcher, finish } = setUp();
      const answer = batcher.submit(["a"]);
      const killed = new EngineCrashedError("m", "gone", { killed: true });
      await finish(killed);
      await finish(killed);
      expect(await answer).toEqual([{ ok: false, error: killed }]);
    });

    test("a failed batch is bisected until the bad item is alone; only that one fails", async () => {
      const { batcher, batches, finishAll } = setUp();
      const answer = batcher.submit([..."abcdefgh"]);
      await finishAll("f");
      expect(values(await answer)).toBe("ABCDE-GH");
      expect(batches).toEqual(["abcdefgh", "abcd", "efgh", "ef", "e", "f", "gh"]);
    });

    test("the halves go before queued work", async () => {
      const { batcher, batches, finish, finishAll } = setUp();
      void batcher.submit(["a", "b"]);
      void batcher.submit(["c"]);
      await finish(new Error("poisoned"));
      await finishAll();
      expect(batches).toEqual(["ab", "a", "b", "c"]);
    });

    test("an item that expires or is cancelled between two halves is not computed again", async () => {
      const { batcher, batches, clock, finish, finishAll } = setUp();
      const controller = new AbortController();
      void batcher.submit(["x"]);
      const good = batcher.submit(["a", "b"]);
      const late = batcher.submit(["c"], { deadline: 10 });
      const gone = batcher.submit(["d"], { signal: controller.signal });
      await finish();
      await finish(new Error("poisoned"));
      await clock.advance(10);
      controller.abort();
      await finishAll();
      expect(batches).toEqual(["x", "abcd", "ab"]);
      expect(values(await good)).toBe("AB");
      expect(codes([...(await late), ...(await gone)])).toEqual(["DEADLINE_EXCEEDED", "CANCELLED"]);
    });

    test("an error of ours is kept", async () => {
      const { batcher, finish } = setUp();
      const answer = batcher.submit(["a"]);
      const error = new QueueFullError("cat", 1);
      await finish(error);
      expect(await answer).toEqual([{ ok: false, error }]);
    });

    test("an engine that throws at once, or throws what is no error, fails like one that rejects", async () => {
      const { batcher } = setUp({
        run: () => {
          throw "no words";
        },
      });
      const items = await batcher.submit(["a", "b"]);
      expect(items).toMatchObject([
        { ok: false, error: { type: "PREDICTION_FAILED", cause: { message: "'no words'" } } },
        { ok: false, error: { type: "PREDICTION_FAILED" } },
      ]);
      expect(batcher.stats).toMatchObject({ queued: 0, inFlight: 0 });
    });

    test.each([
      [["A", "B"], "Expected 3 results of cat, one for each input, but received 2"],
      [undefined, "Expected 3 results of cat, one for each input, but received a value of type undefined"],
    ])(
      "an engine that returns %j for three inputs fails them all by no fault of theirs, says both sizes and is not asked again",
      async (results, message) => {
        const { batcher, batches, reports, finish } = setUp({
          run: async (inputs) => {
            batches.push(inputs.join(""));
            return results as string[];
          },
        });
        const items = await batcher.submit([..."abc"]);
        await finish();
        expect(batches).toEqual(["abc"]);
        expect(codes(items)).toEqual(new Array(3).fill("INTERNAL"));
        expect(items[0]).toMatchObject({ error: { message } });
        expect(reports).toMatchObject([{ size: 3, error: { type: "INTERNAL" } }]);
      },
    );
  });

  describe("reports", () => {
    test("every answer says what happened to it", async () => {
      const { batcher, clock, finish } = setUp({ maxBatchSize: 2 });
      const first = batcher.submit(["a"]);
      await clock.advance(4);
      const second = batcher.submit(["b", "c"]);
      await clock.advance(6);
      await finish();
      await clock.advance(20);
      await finish();
      expect(await first).toEqual([
        { ok: true, value: "A", batchSize: 1, dispatchReason: "idle", queueMs: 0, computeMs: 10 },
      ]);
      const shared = { ok: true, batchSize: 2, dispatchReason: "full", queueMs: 6, computeMs: 20 };
      expect(await second).toEqual([
        { ...shared, value: "B" },
        { ...shared, value: "C" },
      ]);
    });

    test("a batch whose delay is over says so", async () => {
      const { batcher, clock, finishAll } = setUp({ concurrency: 2, maxQueueDelayMs: 10 });
      void batcher.submit(["a"]);
      const answer = batcher.submit(["b"]);
      await clock.advance(10);
      await finishAll();
      expect(await answer).toMatchObject([{ dispatchReason: "delay", queueMs: 10 }]);
    });

    test("every batch is reported, a failed one with its error, its halves as such", async () => {
      const { batcher, clock, reports, finish } = setUp();
      void batcher.submit(["x"]);
      void batcher.submit(["a"]);
      await clock.advance(3);
      void batcher.submit(["b"]);
      await finish();
      await clock.advance(5);
      const error = new Error("poisoned");
      await finish(error);
      await finish();
      await finish();
      const half = { size: 1, reason: "idle", bisected: true, computeMs: 0, error: undefined };
      expect(reports).toEqual([
        { size: 1, reason: "idle", bisected: false, queueMs: 0, computeMs: 3, error: undefined },
        { size: 2, reason: "idle", bisected: false, queueMs: 3, computeMs: 5, error },
        { ...half, queueMs: 8 },
        { ...half, queueMs: 5 },
      ]);
    });
  });

  describe("adaptive bound", () => {
    test("batches get smaller when they take longer than the target", async () => {
      const { batcher, clock, batches, finish } = setUp({ maxBatchSize: 8, latencyTargetMs: 40 });
      expect(batcher.stats.batchLimit).toBe(8);
      const answer = batcher.submit([..."abcdefghijkl"]);
      await clock.advance(80);
      await finish();
      await clock.advance(40);
      await finish();
      expect(batches).toEqual(["abcdefgh", "ijkl"]);
      expect((await answer)[11]).toMatchObject({ dispatchReason: "full", batchSize: 4 });
      expect(batcher.stats.batchLimit).toBe(4);
    });

    test("slots of different kinds are measured apart", async () => {
      const kinds = ["slow", "fast"];
      const taken = new Set<string>();
      const slots = {
        size: 2,
        onFree: () => {},
        take(): Slot | undefined {
          const kind = kinds.find((each) => !taken.has(each));
          if (!kind) return undefined;
          taken.add(kind);
          return { kind, release: () => void taken.delete(kind) };
        },
      };
      const { batcher, clock, batches, finish } = setUp({ maxBatchSize: 2, latencyTargetMs: 40, slots });
      void batcher.submit([..."abcd"]);
      await clock.advance(30);
      await finish(["A", "B"]);
      // The slow one has measured 30 ms for two, which fits; the fast one 60 ms, which does not.
      await clock.advance(30);
      await finish(["C", "D"]);
      taken.add("slow");
      void batcher.submit([..."ef"]);
      expect(batches).toEqual(["ab", "cd", "e"]);
      taken.delete("slow");
      void batcher.submit([..."gh"]);
      expect(batches).toEqual(["ab", "cd", "e", "fg"]);
    });

    test("failed batches teach it nothing", async () => {
      const { batcher, clock, finish } = setUp({ latencyTargetMs: 40 });
      void batcher.submit(["a"]);
      await clock.advance(10_000);
      await finish(new Error("timed out"));
      expect(batcher.stats.batchLimit).toBe(8);
    });
  });

  describe("drain", () => {
    test("it refuses new work and resolves when all that was accepted is answered", async () => {
      const { batcher, finish } = setUp({ maxBatchSize: 1 });
      const answer = batcher.submit(["a", "b"]);
      let drained = false;
      const drain = batcher.drain().then(() => {
        drained = true;
      });
      await expect(batcher.submit(["c"])).rejects.toMatchObject({ type: "DRAINING", retryable: true });
      await finish();
      expect(drained).toBe(false);
      await finish();
      await drain;
      expect(values(await answer)).toBe("AB");
    });

    test("an idle batcher is drained at once, and as often as one asks", async () => {
      const { batcher } = setUp();
      await batcher.drain();
      await expect(batcher.drain()).resolves.toBeUndefined();
    });

    test("nothing waits for company that cannot come any more", () => {
      const { batcher, batches } = setUp({ concurrency: 2, maxQueueDelayMs: 1000 });
      void batcher.submit(["a"]);
      void batcher.submit(["b"]);
      void batcher.drain();
      expect(batches).toEqual(["a", "b"]);
    });
  });

  describe("slots", () => {
    test("what waits for a slot goes when there is one", () => {
      let free = false;
      const slots = {
        size: 1,
        onFree: () => {},
        take: () => (free ? { kind: "", release: () => {} } : undefined),
      };
      const { batcher, batches } = setUp({ slots });
      void batcher.submit(["a"]);
      void batcher.submit(["b"]);
      expect(batches).toEqual([]);
      free = true;
      slots.onFree();
      expect(batches).toEqual(["ab"]);
    });

    test("a slot is given back when its batch has ended, however it did", async () => {
      const { batcher, batches, finish } = setUp({ maxBatchSize: 1 });
      for (const input of "abc") void batcher.submit([input]);
      await finish(new Error("bad"));
      await finish([]);
      expect(batches).toEqual(["a", "b", "c"]);
    });
  });

  describe("rejecting", () => {
    test("settles what waits and what is suspect, and lets what runs finish", async () => {
      const { batcher, batches, finish } = setUp({ maxBatchSize: 4 });
      const suspects = batcher.submit([..."abcd"]);
      const waiting = batcher.submit(["e"]);
      await finish(new Error("bad"));
      const error = new ModelUnavailableError("cat");
      batcher.reject(error);
      expect(await waiting).toEqual([{ ok: false, error }]);
      await finish();
      expect(batches).toEqual(["abcd", "ab"]);
      expect(codes(await suspects)).toEqual(["ok", "ok", "MODEL_UNAVAILABLE", "MODEL_UNAVAILABLE"]);
    });
  });

  describe("options", () => {
    test.each([
      [
        { maxBatchSize: 0 },
        "Expected an integer of at least 1 for maxBatchSize but received 0 of type number",
      ],
      [
        { maxQueueSize: 1.5 },
        "Expected an integer of at least 1 for maxQueueSize but received 1.5 of type number",
      ],
      [
        { maxQueueDelayMs: -1 },
        "Expected a finite number of at least 0 for maxQueueDelayMs but received -1 of type number",
      ],
      [{ latencyTargetMs: 0 }, "Expected a number above 0 for latencyTargetMs but received 0 of type number"],
    ])("%j is refused with its name, what was expected and what came", (options, message) => {
      expect(() => setUp(options as Partial<BatcherOptions<string, string>>)).toThrow(new TypeError(message));
    });
  });
});
