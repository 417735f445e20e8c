import { EnginePool, type EnginePoolOptions } from "../../../../lib/engines/pool.ts";
import { SCRIPT } from "../../../fixtures/runtimes/scripted.ts";

const pools: EnginePool[] = [];

const spec = (threads: number) => ({
  runtime: new URL("../../../fixtures/runtimes/counting.ts", import.meta.url).href,
  file: "",
  inputTensor: "",
  outputTensor: "",
  itemShape: [1],
  threads,
});

function pool(options: Partial<EnginePoolOptions> = {}): EnginePool {
  const made = new EnginePool({ name: "m", spec, threads: 5, instances: 2, ...options });
  pools.push(made);
  return made;
}

/** A batch of one that takes this long; the threads of the engine that had it. */
async function run(engines: EnginePool, ms: number): Promise<number | undefined> {
  const [threads] = await engines.run(Uint8Array.of(ms), 1);
  return threads;
}

afterEach(async () => {
  await Promise.all(pools.splice(0).map((made) => made.dispose()));
});

describe("EnginePool", () => {
  test("gives a batch that is alone all threads, and batches at the same time a share each", async () => {
    const engines = pool();
    await engines.load();
    expect(await run(engines, 0)).toBe(5);
    expect(await Promise.all([run(engines, 100), run(engines, 50), run(engines, 50)])).toEqual([5, 2, 2]);
    expect(await run(engines, 0)).toBe(5);
  });

  test("goes on with shares while one runs, so that no batch has more threads than there are for long", async () => {
    const engines = pool();
    await engines.load();
    const first = run(engines, 50);
    const second = run(engines, 200);
    expect(await first).toBe(5);
    expect(await run(engines, 0)).toBe(2);
    expect(await second).toBe(2);
  });

  test.each([
    ["one instance", { instances: 1, threads: 4 }, [4, 4]],
    ["one thread", { instances: 2, threads: 1 }, [1, 1]],
    ["more instances than threads", { instances: 9, threads: 3 }, [3, 1]],
  ])("with %s", async (_, options, threads) => {
    const engines = pool(options);
    await engines.load();
    expect(await Promise.all([run(engines, 50), run(engines, 50)])).toEqual(threads);
  });

  test("one that died takes its own batch with it, and another has the next", async () => {
    const restarts: string[] = [];
    const engines = pool({ onRestart: (reason) => restarts.push(reason) });
    await engines.load();
    const [dead, other] = await Promise.allSettled([run(engines, SCRIPT.EXIT), run(engines, 50)]);
    expect(dead).toMatchObject({ status: "rejected", reason: { type: "ENGINE_CRASHED" } });
    expect(other).toEqual({ status: "fulfilled", value: 2 });
    expect(restarts).toHaveLength(1);
  });

  test("does not wait for an engine that loads while another is up", async () => {
    const engines = pool({ spec: (threads) => ({ ...spec(threads), file: threads === 5 ? "1000" : "" }) });
    await engines.load();
    await expect(run(engines, SCRIPT.EXIT)).rejects.toMatchObject({ type: "ENGINE_CRASHED" });
    expect(await run(engines, 0)).toBe(2);
  });

  test("gives two batches to the whole one if the shares are down", async () => {
    const engines = pool({ spec: (threads) => ({ ...spec(threads), file: threads === 5 ? "" : "1000" }) });
    await engines.load();
    const first = run(engines, 200);
    for (let share = 0; share < 2; share++)
      await expect(run(engines, SCRIPT.EXIT)).rejects.toMatchObject({ type: "ENGINE_CRASHED" });
    expect(await Promise.all([first, run(engines, 0)])).toEqual([5, 5]);
  });

  test("cannot be loaded if one of its engines cannot", async () => {
    const missing = new URL("./missing.ts", import.meta.url).href;
    const engines = pool({
      spec: (threads) => (threads === 5 ? spec(threads) : { ...spec(threads), runtime: missing }),
    });
    await expect(engines.load()).rejects.toMatchObject({ type: "ENGINE_CRASHED" });
    await expect(run(engines, 0)).rejects.toMatchObject({ type: "ENGINE_CRASHED" });
  });
});
