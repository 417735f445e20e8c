import {
  DeadlineExceededError,
  DrainingError,
  EngineCrashedError,
  QueueFullError,
} from "../../../../lib/errors.ts";
import { Retry } from "../../../../lib/request/retry.ts";

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
    await expect(new Retry({ delayMs: 0 }).run(attempt)).resolves.toBe(3);
  });

  test.each([
    [new DrainingError(), 3],
    [new EngineCrashedError("m", "x"), 2],
  ])("%s is worth %d attempts", async (error, attempts) => {
    const { attempt, calls } = failing(error, 9);
    await expect(new Retry({ delayMs: 0 }).run(attempt)).rejects.toThrow(error);
    expect(calls()).toBe(attempts);
  });

  test.each([new QueueFullError("m", 1), new DeadlineExceededError("queue"), new Error("bug")])(
    "does not repeat %s",
    async (error) => {
      const { attempt, calls } = failing(error, 9);
      await expect(new Retry({ delayMs: 0 }).run(attempt)).rejects.toThrow(error);
      expect(calls()).toBe(1);
    },
  );

  test("a cluster that only fails gets a bounded share of retries", async () => {
    const retry = new Retry({ delayMs: 0, budget: 0.1 });
    let retries = 0;
    const requests = 1000;
    for (let i = 0; i < requests; i++) {
      const { attempt } = failing(new DrainingError(), 9);
      await retry.run(attempt, () => retries++).catch(() => {});
    }
    expect(retries).toBeGreaterThanOrEqual(100);
    expect(retries).toBeLessThanOrEqual(100 + 0.1 * requests);
  });
});
