import { Cores } from "../../../../lib/engines/cores.ts";
import {
  divideThreads,
  EnginePool,
  type EnginePoolOptions,
  type EngineSlot,
  type PoolState,
} from "../../../../lib/engines/pool.ts";
import { FakeClock, settle } from "../../../../testkit/fake-clock.ts";
import { FakeDevice } from "../../../../testkit/fake-engine.ts";

const SPEC = {
  runtime: "fake",
  dir: "",
  files: [],
  inputs: [{ name: "x", dtype: "float32", shape: [1] }],
  outputs: [{ name: "y", dtype: "float32", shape: [1] }],
  maxBatch: 4,
} as const;

function setUp(options: Partial<EnginePoolOptions> = {}) {
  const device = new FakeDevice();
  const clock = new FakeClock();
  const states: PoolState[] = [];
  const deaths: string[] = [];
  const pool = new EnginePool({
    name: "m",
    spec: SPEC,
    create: device.create,
    threads: 5,
    instances: 2,
    cores: new Cores(2),
    clock,
    onState: (state) => states.push(state),
    onDeath: (reason) => deaths.push(reason),
    ...options,
  });
  /** Computes one batch in a slot; its threads. */
  const run = async (slot: EngineSlot | undefined): Promise<number | undefined> => {
    if (!slot) return undefined;
    const answer = slot.run({}, 1, { deadline: Number.POSITIVE_INFINITY });
    await settle();
    const { engine, finish } = device.runs.at(-1) ?? {};
    finish?.();
    await answer;
    slot.release();
    return engine?.spec.threads;
  };
  return { pool, device, clock, states, deaths, run };
}

describe("divideThreads", () => {
  test.each([
    [1, 2, [1]],
    [2, 1, [2]],
    [2, 2, [2, 1]],
    [3, 2, [3, 2]],
    [5, 2, [5, 3]],
    [7, 2, [7, 4]],
    [7, 3, [7, 3, 3]],
    [4, 9, [4, 1, 1, 1]],
  ])("%i threads, %i engines: %j", (threads, instances, expected) => {
    expect(divideThreads(threads, instances)).toEqual(expected);
  });
});

describe("EnginePool", () => {
  test("loads as many engines as it says, and no more", async () => {
    const { pool, device, states } = setUp();
    await pool.load();
    expect(device.engines.map(({ spec }) => spec.threads)).toEqual([5, 3]);
    expect(states.at(-1)).toBe("up");
  });

  test("gives a batch that is alone all threads, and one beside it a share", async () => {
    const { pool, run } = setUp();
    await pool.load();
    expect(await run(pool.take())).toBe(5);
    const [first, second] = [pool.take(), pool.take()];
    expect(pool.take()).toBeUndefined();
    expect(await run(second)).toBe(3);
    expect(await run(first)).toBe(5);
  });

  test("goes on with what is free beside a batch that has a share", async () => {
    const { pool, run } = setUp();
    await pool.load();
    const first = pool.take();
    const second = pool.take();
    await run(first);
    expect(await run(pool.take())).toBe(5);
    await run(second);
  });

  test("one thread means one batch at a time", async () => {
    const { pool } = setUp({ threads: 1 });
    await pool.load();
    expect(pool.size).toBe(1);
    expect(pool.take()).toBeDefined();
    expect(pool.take()).toBeUndefined();
  });

  test("pools of one process share its cores and take turns", async () => {
    const cores = new Cores(1);
    const [a, b] = [setUp({ cores }), setUp({ cores })];
    await Promise.all([a.pool.load(), b.pool.load()]);
    const turns: string[] = [];
    b.pool.onFree = () => void turns.push("b");
    const slot = a.pool.take();
    expect(b.pool.take()).toBeUndefined();
    await a.run(slot);
    expect(turns).toContain("b");
    expect(b.pool.take()).toBeDefined();
    expect(a.pool.take()).toBeUndefined();
  });

  test("an engine that dies takes its own batch with it, and the other has the next", async () => {
    const { pool, device, deaths, states, run } = setUp();
    await pool.load();
    const [first, second] = [pool.take(), pool.take()];
    const failed = first?.run({}, 1, { deadline: Number.POSITIVE_INFINITY });
    await settle();
    device.loadsAtOnce = false;
    device.engines[0]?.die("segmentation fault");
    await expect(failed).rejects.toMatchObject({ type: "ENGINE_CRASHED" });
    first?.release();
    expect(deaths).toEqual(["segmentation fault"]);
    expect(await run(second)).toBe(3);
    expect(await run(pool.take())).toBe(3);
    expect(states.at(-1)).toBe("up");
  });

  test("an engine that dies is replaced, also while it computes nothing", async () => {
    const { pool, device, clock, run } = setUp({ instances: 1 });
    await pool.load();
    device.engines[0]?.die();
    await settle();
    expect(pool.state).toBe("down");
    expect(pool.take()).toBeUndefined();
    let free = 0;
    pool.onFree = () => free++;
    await clock.advance(0);
    expect(pool.state).toBe("up");
    expect(free).toBeGreaterThan(0);
    expect(await run(pool.take())).toBe(5);
    expect(device.engines).toHaveLength(2);
  });

  test("engines that die one after the other rest longer and longer, then fail, then are lost; a run that works forgives", async () => {
    const { pool, device, clock, states, run } = setUp({ instances: 1 });
    await pool.load();
    device.loadsAtOnce = false;
    const began = clock.now();
    const times: number[] = [];
    for (let i = 0; i < 10; i++) {
      const made = device.engines.length;
      device.engines.at(-1)?.die();
      while (device.engines.length === made) expect(await clock.step()).toBe(true);
      times.push(clock.now() - began);
    }
    expect(times.map((at, i) => at - (times[i - 1] ?? 0))).toEqual([
      0, 50, 100, 200, 400, 800, 1600, 3200, 5000, 5000,
    ]);
    expect(states).toEqual(["up", "down", "failing", "lost"]);
    device.engines.at(-1)?.finishLoad();
    await settle();
    expect(pool.state).toBe("up");
    await run(pool.take());
    device.loadsAtOnce = true;
    device.engines.at(-1)?.die();
    await settle();
    expect(pool.state).toBe("down");
  });

  test("a load that takes too long is a death", async () => {
    const { pool, device, clock } = setUp({ loadTimeoutMs: 1000 });
    device.loadsAtOnce = false;
    const loaded = expect(pool.load()).rejects.toMatchObject({ message: expect.stringContaining("1000 ms") });
    await clock.advance(1000);
    await loaded;
  });

  test("cannot be loaded if one of its engines cannot; the others are closed and none is tried again", async () => {
    const { pool, device, clock } = setUp();
    device.loadsAtOnce = false;
    const loaded = expect(pool.load()).rejects.toMatchObject({ type: "ENGINE_CRASHED" });
    device.engines[0]?.finishLoad();
    await settle();
    device.engines[1]?.die("no such file");
    await loaded;
    await clock.advance(60_000);
    expect(device.engines.map(({ closed }) => closed)).toEqual([true, true]);
    expect(pool.take()).toBeUndefined();
    expect(pool.state).toBe("closed");
  });

  test("closing lets what runs finish, and replaces nothing", async () => {
    const { pool, device, clock } = setUp({ instances: 1 });
    await pool.load();
    const slot = pool.take();
    const answer = slot?.run({}, 1, { deadline: Number.POSITIVE_INFINITY });
    await settle();
    let closed = false;
    const closing = pool.close().then(() => {
      closed = true;
    });
    await settle();
    expect(closed).toBe(false);
    device.runs[0]?.finish();
    expect(await answer).toHaveLength(1);
    await closing;
    await clock.advance(60_000);
    expect(device.engines).toHaveLength(1);
  });
});
