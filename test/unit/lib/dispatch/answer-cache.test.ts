import {
  AnswerCache,
  type AnswerStore,
  type CacheResult,
  MemoryStore,
} from "../../../../lib/dispatch/answer-cache.ts";
import type { ModelAnswer } from "../../../../lib/types.ts";

const ANSWER: ModelAnswer = {
  answer: true,
  probability: 1,
  labels: [],
  model: { name: "m", version: 1 },
  node: "n",
  batchSize: 1,
  dispatchReason: "idle",
  timing: { queueMs: 0, computeMs: 1 },
};
const FAILURE: ModelAnswer = { error: { code: "QUEUE_FULL", message: "full", retryable: true } };

function cache(store: AnswerStore = new MemoryStore({ ttlMs: 60_000, maxEntries: 2 })) {
  const results: CacheResult[] = [];
  const made = new AnswerCache(store, (result) => results.push(result));
  let computed = 0;
  const ask = (key: string, answer: ModelAnswer = ANSWER) =>
    made.through(key, async () => {
      computed += 1;
      return answer;
    });
  return { made, ask, results, computed: () => computed };
}

describe("AnswerCache", () => {
  test("computes once and says that the second answer was kept", async () => {
    const { ask, results, computed } = cache();
    expect(await ask("k")).toEqual(ANSWER);
    expect(await ask("k")).toEqual({ ...ANSWER, cached: true });
    expect(computed()).toBe(1);
    expect(results).toEqual(["miss", "hit"]);
  });

  test("callers that ask at the same time share one computation", async () => {
    const { ask, results, computed } = cache();
    const answers = await Promise.all([ask("k"), ask("k"), ask("k")]);
    expect(answers.map((answer) => "cached" in answer)).toEqual([false, true, true]);
    expect(computed()).toBe(1);
    expect(results.sort()).toEqual(["miss", "shared", "shared"]);
  });

  test("keeps no errors, and an error of one caller is not that of another", async () => {
    const { ask, computed } = cache();
    const [first, second] = await Promise.all([ask("k", FAILURE), ask("k")]);
    expect(first).toEqual(FAILURE);
    expect(second).toEqual(ANSWER);
    expect(computed()).toBe(2);
    await ask("k", FAILURE);
    expect(computed()).toBe(3);
  });

  test("what throws for the first caller is computed again for the second", async () => {
    const { made, ask } = cache();
    const first = made.through("k", async () => {
      throw new Error("hung up");
    });
    const second = ask("k");
    await expect(first).rejects.toThrow("hung up");
    expect(await second).toEqual(ANSWER);
  });

  test("holds at most its bound", async () => {
    const { ask, computed } = cache();
    for (const key of ["a", "b", "c", "a"]) await ask(key);
    expect(computed()).toBe(4);
  });

  test("a store that fails costs a miss, never an answer", async () => {
    const broken: AnswerStore = {
      get: () => Promise.reject(new Error("down")),
      set: () => Promise.reject(new Error("down")),
      close: async () => {},
    };
    const { ask, results } = cache(broken);
    expect(await ask("k")).toEqual(ANSWER);
    expect(results).toEqual(["error"]);
  });
});
