import { PredictionFailedError } from "../../../../lib/errors.ts";
import type { ModelId } from "../../../../lib/models/identity.ts";
import type { VersionPolicy } from "../../../../lib/models/policy.ts";
import type { Found } from "../../../../lib/models/repository.ts";
import { type Loaded, type VersionEvent, Versions } from "../../../../lib/models/versions.ts";
import type { PredictResult } from "../../../../lib/types.ts";
import { FakeClock } from "../../../../testkit/fake-clock.ts";

interface Fake extends Loaded {
  readonly beside: boolean;
  closed: boolean;
}

const id = (version: number, files = ""): ModelId => ({
  name: "net",
  version,
  fingerprint: `f${version}${files}`,
});

function setUp({
  policy = { latest: 1 } as VersionPolicy,
  requests = 2,
  there = [1] as readonly number[],
  keepWarmMs = 60_000,
} = {}) {
  const clock = new FakeClock();
  const events: string[] = [];
  const loads: string[] = [];
  const fakes: Fake[] = [];
  const mounted = new Set<string>();
  /** What versions `ready` was whenever something changed. */
  const served: number[][] = [];
  /** By version; a load of one that is here fails. */
  const broken = new Map<number, string>();
  let repository: readonly Found[] = [];
  let unreadable: Error | undefined;
  const found = (version: number, files = ""): Found => ({
    version,
    fingerprint: id(version, files).fingerprint,
    stamp: files,
    fetch: async () => `${version}${files}`,
  });
  const put = (...versions: readonly number[]) => {
    repository = versions.map((version) => found(version));
  };
  put(...there);
  const versions: Versions<Fake> = new Versions<Fake>({
    name: "m",
    repository: {
      list: async () => {
        if (unreadable) throw unreadable;
        return { found: repository, problems: [] };
      },
    },
    policy,
    probation: { requests, maxErrorRate: 0.5 },
    keepWarmMs,
    clock,
    async load(dir, beside, onState) {
      loads.push(dir);
      const version = Number.parseInt(dir, 10);
      onState("warming");
      onState("checking");
      const reason = broken.get(version);
      if (reason) throw new Error(reason);
      const fake: Fake = {
        id: id(version, dir.slice(String(version).length)),
        beside,
        closed: false,
        close: async () => {
          fake.closed = true;
        },
      };
      fakes.push(fake);
      return fake;
    },
    mount: async ({ fingerprint }) => void mounted.add(fingerprint),
    unmount: async ({ fingerprint }) => void mounted.delete(fingerprint),
    onChange: () => {
      const now = numbers();
      if (String(served.at(-1)) !== String(now)) served.push(now);
    },
    onEvent: (event: VersionEvent) => {
      const of = "id" in event ? event.id.version : "version" in event ? event.version : "";
      events.push(`${event.event} ${of}`.trim());
    },
  });
  const numbers = () => versions.ready.map(({ loaded }) => loaded.id.version);
  const ask = (version: number | undefined, fails = false) =>
    versions.ask(version === undefined ? undefined : `f${version}`, 1, async (fake) => {
      if (fails) throw new PredictionFailedError("m", "it is bad");
      return { model: fake.id, node: "n", items: [{ ok: true } as PredictResult["items"][number]] };
    });
  return {
    versions,
    clock,
    events,
    loads,
    fakes,
    mounted,
    served,
    broken,
    put,
    replace: (version: number, files: string) => {
      repository = [found(version, files)];
    },
    fail: (error?: Error) => {
      unreadable = error;
    },
    numbers,
    ask,
    state: (version: number) => versions.reports.find((report) => report.version === version)?.state,
  };
}

describe("the versions of a model", () => {
  test("start with the newest, loaded with all there is since nobody serves beside", async () => {
    const { versions, numbers, fakes, state } = setUp({ there: [1, 2] });
    await versions.start();
    expect(numbers()).toEqual([2]);
    expect(fakes.map(({ beside }) => beside)).toEqual([false]);
    expect([state(1), state(2)]).toEqual(["available", "ready"]);
  });

  test("start with an older one where the newest is bad", async () => {
    const { versions, numbers, broken, state } = setUp({ there: [1, 2] });
    broken.set(2, "wrong");
    await versions.start();
    expect(numbers()).toEqual([1]);
    expect(state(2)).toBe("failed");
  });

  test("do not start with none that works: the newest one's error says why", async () => {
    const { versions, broken } = setUp({ there: [1, 2] });
    broken.set(1, "old and bad").set(2, "new and bad");
    await expect(versions.start()).rejects.toThrow("new and bad");
  });

  test("change without a moment in which none is served", async () => {
    const { versions, put, served, numbers, ask, clock, fakes } = setUp();
    await versions.start();
    served.length = 0;
    put(1, 2);
    await versions.reconcile();
    expect(numbers()).toEqual([2, 1]);
    await ask(2);
    await ask(2);
    await clock.advance(10_000);
    expect(numbers()).toEqual([2]);
    expect(served).toEqual([[1], [2, 1], [2]]);
    expect(fakes.map(({ beside, closed }) => [beside, closed])).toEqual([
      [false, true],
      [true, false],
    ]);
  });

  test("keep the old one until the new one has answered its first items", async () => {
    const { versions, put, fakes, ask, clock, events } = setUp();
    await versions.start();
    put(1, 2);
    await versions.reconcile();
    await ask(2);
    await clock.advance(30_000);
    expect(fakes[0]?.closed).toBe(false);
    await ask(2);
    await clock.advance(10_000);
    expect(fakes[0]?.closed).toBe(true);
    expect(events).toEqual(["ready 1", "ready 2", "proven 2", "closed 1"]);
  });

  test("let the old one go when the new one has proved itself elsewhere", async () => {
    const { versions, put, fakes, clock } = setUp();
    await versions.start();
    put(1, 2);
    await versions.reconcile();
    versions.prove("f2");
    await clock.advance(10_000);
    expect(fakes.map(({ closed }) => closed)).toEqual([true, false]);
  });

  test("let the old one go when nobody has asked for it for long, even if nobody asks the new one", async () => {
    const { versions, put, fakes, clock } = setUp({ keepWarmMs: 60_000 });
    await versions.start();
    put(1, 2);
    await versions.reconcile();
    await clock.advance(59_000);
    expect(fakes[0]?.closed).toBe(false);
    await clock.advance(10_000);
    expect(fakes[0]?.closed).toBe(true);
  });

  test("keep an old one that is still asked for, while the new one is not proven", async () => {
    const { versions, put, fakes, clock, ask } = setUp({ keepWarmMs: 60_000 });
    await versions.start();
    put(1, 2);
    await versions.reconcile();
    for (let i = 0; i < 10; i++) {
      await clock.advance(30_000);
      await ask(1);
    }
    expect(fakes[0]?.closed).toBe(false);
  });

  test("take a new one back whose first items fail; the old one serves on and it is not tried again", async () => {
    const { versions, put, numbers, ask, clock, events, state, loads } = setUp();
    await versions.start();
    put(1, 2);
    await versions.reconcile();
    for (let i = 0; i < 2; i++) await expect(ask(2, true)).rejects.toThrow("it is bad");
    expect(numbers()).toEqual([1]);
    await clock.advance(10_000);
    await versions.reconcile();
    expect(numbers()).toEqual([1]);
    expect([state(1), state(2)]).toEqual(["ready", "failed"]);
    expect(events).toContain("taken back 2");
    expect(loads).toEqual(["1", "2"]);
    expect(versions.reports.find(({ version }) => version === 2)?.error).toBe(
      "2 of its first 2 items failed",
    );
  });

  test("go on with one whose items fail if there is no other", async () => {
    const { versions, numbers, ask } = setUp();
    await versions.start();
    for (let i = 0; i < 9; i++) await expect(ask(1, true)).rejects.toThrow();
    expect(numbers()).toEqual([1]);
  });

  test("are not changed by one that fails to load; it is tried again a few times, and on demand", async () => {
    const { versions, put, broken, numbers, loads, state } = setUp();
    await versions.start();
    broken.set(2, "in /srv/models/net/2/model.onnx: wrong");
    put(1, 2);
    for (let i = 0; i < 6; i++) await versions.reconcile();
    expect(numbers()).toEqual([1]);
    expect(loads).toEqual(["1", "2", "2", "2"]);
    expect(versions.reports.find(({ version }) => version === 2)).toMatchObject({
      state: "failed",
      error: "in …/model.onnx: wrong",
    });
    broken.clear();
    await versions.reconcile({ force: true });
    expect(numbers()).toEqual([2, 1]);
    expect(state(2)).toBe("ready");
  });

  test("go back when the newest folder is taken away", async () => {
    const { versions, put, numbers, ask, clock } = setUp({ there: [1, 2] });
    await versions.start();
    put(1);
    await versions.reconcile();
    await ask(1);
    await ask(1);
    await clock.advance(10_000);
    expect(numbers()).toEqual([1]);
  });

  test("serve on when all folders are gone, or cannot be read", async () => {
    const { versions, put, fail, numbers, clock, events } = setUp({ keepWarmMs: 1000 });
    await versions.start();
    put();
    await versions.reconcile();
    fail(new Error("EIO"));
    await expect(versions.reconcile()).rejects.toThrow("EIO");
    await clock.advance(100_000);
    expect(numbers()).toEqual([1]);
    expect(events).toContain("unreadable");
    expect(versions.reports).toContainEqual({ state: "failed", error: "EIO" });
  });

  test("take over other files under the same number", async () => {
    const { versions, replace, clock, fakes, numbers, mounted } = setUp({ requests: 0 });
    await versions.start();
    replace(1, "b");
    await versions.reconcile();
    await versions.ask("f1b", 1, async ({ id }) => ({ model: id, node: "n", items: [] }));
    await clock.advance(100_000);
    expect(numbers()).toEqual([1]);
    expect(fakes.map(({ closed }) => closed)).toEqual([true, false]);
    expect([...mounted]).toEqual(["f1b"]);
  });

  test("serve several, the newest for who names none", async () => {
    const { versions, numbers, ask } = setUp({ policy: { latest: 2 }, there: [1, 2, 3] });
    await versions.start();
    expect(numbers()).toEqual([3, 2]);
    expect((await ask(undefined)).model.version).toBe(3);
    expect((await ask(2)).model.version).toBe(2);
    await expect(ask(1)).rejects.toMatchObject({ type: "MODEL_UNAVAILABLE" });
  });

  test("answer at the old address until everyone has heard, then refuse, then give it up", async () => {
    const { versions, put, ask, clock, mounted, fakes } = setUp({ requests: 1 });
    await versions.start();
    put(1, 2);
    await versions.reconcile();
    await ask(2);
    await clock.advance(1000);
    expect((await ask(1)).model.version).toBe(1);
    await clock.advance(5000);
    expect(fakes[0]?.closed).toBe(true);
    await expect(ask(1)).rejects.toMatchObject({ type: "MODEL_UNAVAILABLE" });
    expect([...mounted]).toEqual(["f1", "f2"]);
    await clock.advance(100_000);
    expect([...mounted]).toEqual(["f2"]);
  });

  test("do as they are told besides: load one more, unload one, prefer one, refuse one", async () => {
    const { versions, numbers, clock } = setUp({ policy: { latest: 2 }, there: [1, 2, 3], requests: 0 });
    await versions.start();
    const wishes = { load: [], unload: [], refused: [] };
    versions.wishes = { ...wishes, load: [1] };
    await versions.reconcile();
    expect(numbers()).toEqual([3, 2, 1]);
    versions.wishes = { ...wishes, stable: 2 };
    await versions.reconcile();
    await clock.advance(10_000);
    expect(numbers()).toEqual([2, 3]);
    versions.wishes = { ...wishes, unload: [3] };
    await versions.reconcile();
    await clock.advance(10_000);
    expect(numbers()).toEqual([2, 1]);
    versions.wishes = { ...wishes, refused: ["f2"] };
    await versions.reconcile();
    await clock.advance(10_000);
    expect(numbers()).toEqual([3, 1]);
  });

  test("end with the service, also those that drain", async () => {
    const { versions, put, fakes, ask } = setUp({ requests: 1 });
    await versions.start();
    put(1, 2);
    await versions.reconcile();
    await ask(2);
    await versions.close();
    expect(fakes.map(({ closed }) => closed)).toEqual([true, true]);
  });
});
