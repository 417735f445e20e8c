import {
  DeadlineExceededError,
  DrainingError,
  EngineCrashedError,
  QueueFullError,
} from "../../../../lib/errors.ts";
import { Retry } from "../../../../lib/request/retry.ts";
import { createScope } from "../../../../lib/request/scope.ts";
import { FakeClock } from "../../../../testkit/fake-clock.ts";

const scope = createScope();

const failing = (error: Error, times: number) => {
  let calls = 0;
  return {
    attempt: async () => {
      calls += 1;
      if (calls <= times) throw error;
      return calls;
    },
    calls: () => calls,
  };
};

describe("Retry", () => {
  test("repeats what another replica may do", async () => {
    const { attempt } = failing(new DrainingError(), 2);
    await expect(new Retry({ delayMs: 0 }).run(scope, attempt)).resolves.toBe(3);
  });

  test.each([
    [new DrainingError(), 3],
    [new EngineCrashedError("m", "x"), 2],
  ])("%s is worth %d attempts", async (error, attempts) => {
    const { attempt, calls } = failing(error, 9);
    await expect(new Retry({ delayMs: 0 }).run(scope, attempt)).rejects.toThrow(error);
    expect(calls()).toBe(attempts);
  });

  test.each([new QueueFullError("m", 1), new DeadlineExceededError("queue"), new Error("bug")])(
    "does not repeat %s",
    async (error) => {
      const { attempt, calls } = failing(error, 9);
      await expect(new Retry({ delayMs: 0 }).run(scope, attempt)).rejects.toThrow(error);
      expect(calls()).toBe(1);
    },
  );

  test("a cluster that only fails gets a bounded share of retries", async () => {
    const retry = new Retry({ delayMs: 0, budget: 0.1 });
    let retries = 0;
    const requests = 1000;
    for (let i = 0; i < requests; i++) {
      const { attempt } = failing(new DrainingError(), 9);
      await retry.run(scope, attempt, () => retries++).catch(() => {});
    }
    expect(retries).toBeGreaterThanOrEqual(100);
    expect(retries).toBeLessThanOrEqual(100 + 0.1 * requests);
  });

  test("waits on the scope's clock before it tries again", async () => {
    const clock = new FakeClock();
    const { attempt, calls } = failing(new DrainingError(), 1);
    const running = new Retry({ delayMs: 50, random: () => 0.5 }).run(createScope({ clock }), attempt);
    await clock.advance(49);
    expect(calls()).toBe(1);
    await clock.advance(1);
    await expect(running).resolves.toBe(2);
  });

  test("does not wait for an attempt that could only come after the deadline", async () => {
    const clock = new FakeClock();
    const { attempt, calls } = failing(new DrainingError(), 9);
    const running = new Retry({ delayMs: 50, random: () => 0.5 }).run(
      createScope({ clock, deadline: 50 }),
      attempt,
    );
    await expect(running).rejects.toMatchObject({ type: "DRAINING" });
    expect([calls(), clock.pending]).toEqual([1, 0]);
  });

  test("ends its wait when the caller gives up", async () => {
    const clock = new FakeClock();
    const abort = new AbortController();
    const { attempt, calls } = failing(new DrainingError(), 9);
    const running = new Retry().run(createScope({ clock, signal: abort.signal }), attempt);
    running.catch(() => {});
    await clock.advance(1);
    abort.abort();
    await expect(running).rejects.toMatchObject({ type: "CANCELLED" });
    expect([calls(), clock.pending]).toEqual([1, 0]);
  });
});
