import {
  type CacheResult,
  MemoryStore,
  OutputCache,
  type OutputStore,
} from "../../../../lib/dispatch/output-cache.ts";
import { createScope } from "../../../../lib/request/scope.ts";

function cache(store: OutputStore = new MemoryStore({ ttlMs: 60_000, maxEntries: 2 })) {
  const results: CacheResult[] = [];
  const made = new OutputCache<string>(store, (result) => results.push(result));
  let computed = 0;
  const ask = (key: string, output: unknown = [0.5]) =>
    made.through(key, createScope(), async () => {
      computed += 1;
      return { output, report: "fresh" };
    });
  return { made, ask, results, computed: () => computed };
}

describe("OutputCache", () => {
  test("computes once, and what it kept comes without the report of then", async () => {
    const { ask, results, computed } = cache();
    expect(await ask("k")).toEqual({ output: [0.5], report: "fresh" });
    expect(await ask("k")).toEqual({ output: [0.5] });
    expect([computed(), results]).toEqual([1, ["miss", "hit"]]);
  });

  test("callers that ask at the same time share one computation", async () => {
    const { ask, results, computed } = cache();
    const found = await Promise.all([ask("k"), ask("k"), ask("k")]);
    expect(found.map(({ report }) => report)).toEqual(["fresh", undefined, undefined]);
    expect([computed(), results.sort()]).toEqual([1, ["miss", "shared", "shared"]]);
  });

  test("keeps an output that is falsy, too", async () => {
    const { ask, computed } = cache();
    await ask("k", 0);
    expect((await ask("k", 1)).output).toBe(0);
    expect(computed()).toBe(1);
  });

  test("keeps no errors", async () => {
    const { made, ask } = cache();
    const failing = made.through("k", createScope(), async () => {
      throw new Error("broken");
    });
    await expect(failing).rejects.toThrow("broken");
    expect(await ask("k")).toEqual({ output: [0.5], report: "fresh" });
  });

  test("holds at most its bound", async () => {
    const { ask, computed } = cache();
    for (const key of ["a", "b", "c", "a"]) await ask(key);
    expect(computed()).toBe(4);
  });

  test("counts who wants nothing from it", () => {
    const { made, results } = cache();
    made.bypass();
    expect(results).toEqual(["bypass"]);
  });

  test("a store that fails costs a miss, never an answer", async () => {
    const broken: OutputStore = {
      get: () => Promise.reject(new Error("down")),
      set: () => Promise.reject(new Error("down")),
      close: async () => {},
    };
    const { ask, results } = cache(broken);
    expect(await ask("k")).toEqual({ output: [0.5], report: "fresh" });
    expect(results).toEqual(["error"]);
  });
});
