import { jest } from "@jest/globals";
import { type LoadReport, LoadTable } from "../../../lib/load/table.ts";
import { choose } from "../../../strategies/load-aware.ts";
import { SCORE_DEFAULTS } from "../../../strategies/score.ts";

const IDLE: LoadReport = { cpu: 0, wait: 0, memory: 0, queued: 0, inFlight: 0, draining: false };

/** Marsaglia's xorshift: the same numbers in every run. */
function generator(seed = 7): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

/** Nodes long known that have just told these loads. */
function cluster(loads: Readonly<Record<string, Partial<LoadReport>>>) {
  const clock = { ms: 0 };
  const table = new LoadTable(() => clock.ms);
  for (const id of Object.keys(loads)) table.seen(id);
  clock.ms = 60_000;
  for (const [id, load] of Object.entries(loads)) table.heartbeat(id, { ...IDLE, ...load });
  const list = Object.keys(loads).map((id) => ({ id }));
  const random = generator();
  const pick = () => choose(list, table, SCORE_DEFAULTS, random).id;
  /** How often each node is chosen when every request is answered at once. */
  const shares = (times = 3000) => {
    const counts: Record<string, number> = Object.fromEntries(list.map(({ id }) => [id, 0]));
    for (let i = 0; i < times; i++) {
      const id = pick();
      counts[id] = (counts[id] ?? 0) + 1;
    }
    return counts;
  };
  return { clock, table, list, pick, shares, random };
}

test("the only endpoint is returned without a look at the table", () => {
  const never = () => {
    throw new Error("was asked");
  };
  expect(choose([{ id: "a" }], new LoadTable(never), SCORE_DEFAULTS, never)).toEqual({ id: "a" });
});

test("an empty list is an error that says so", () => {
  expect(() => choose([], new LoadTable(), SCORE_DEFAULTS, Math.random)).toThrow("at least one endpoint");
});

test("of two nodes the one with less load is always taken", () => {
  expect(cluster({ busy: { cpu: 0.9 }, idle: { cpu: 0.1 } }).shares(100)).toEqual({ busy: 0, idle: 100 });
});

test("equal nodes get equal shares", () => {
  for (const share of Object.values(cluster({ a: {}, b: {}, c: {}, d: {} }).shares(4000))) {
    expect(share).toBeGreaterThan(900);
    expect(share).toBeLessThan(1100);
  }
});

test("with a stale report all in its favour a node still gets no more than its chance to be drawn", () => {
  const { shares } = cluster({ idle: {}, b: { cpu: 1 }, c: { cpu: 1 }, d: { cpu: 1 } });
  // Drawn among two of four: every other time.
  expect(shares(4000)["idle"]).toBeLessThan(2200);
});

test("the worst of several nodes is never taken, as the other one drawn is better", () => {
  expect(cluster({ a: {}, b: { cpu: 0.2 }, worst: { cpu: 0.8 } }).shares()["worst"]).toBe(0);
});

test("requests in flight even out over equal nodes", () => {
  const { pick, table } = cluster({ a: {}, b: {}, c: {} });
  for (let i = 0; i < 300; i++) table.begin(pick());
  for (const id of ["a", "b", "c"]) expect(Math.abs((table.get(id)?.inFlight ?? 0) - 100)).toBeLessThan(8);
});

test("a node that never answers keeps what it has and gets no more than the others hold at once", () => {
  const { pick, table } = cluster({ a: {}, b: {}, stuck: {} });
  for (let i = 0; i < 1000; i++) {
    const id = pick();
    const end = table.begin(id);
    if (id !== "stuck") end("answered");
  }
  expect(table.get("stuck")?.inFlight).toBeLessThanOrEqual(2);
});

test("a node whose work others had to do is left alone for a while", () => {
  const { table, shares, clock } = cluster({ a: {}, b: {}, stuck: {} });
  table.begin("stuck")("missed");
  expect(shares()["stuck"]).toBe(0);
  clock.ms += 2000;
  for (const id of ["a", "b", "stuck"]) table.heartbeat(id, IDLE);
  expect(shares()["stuck"]).toBe(0);
  for (let s = 0; s < 60; s++) {
    clock.ms += 1000;
    for (const id of ["a", "b", "stuck"]) table.heartbeat(id, IDLE);
  }
  table.begin("a");
  table.begin("b");
  expect(shares()["stuck"]).toBeGreaterThan(1500);
});

test.each<[string, Partial<LoadReport>]>([
  ["above the memory mark", { memory: 0.95 }],
  ["that drains", { draining: true }],
])("a node %s gets nothing while another exists, however busy that is", (_, load) => {
  const { table, shares } = cluster({ avoided: load, busy: { cpu: 1, wait: 0.9, queued: 100 } });
  for (let i = 0; i < 50; i++) table.begin("busy");
  expect(shares(100)).toEqual({ avoided: 0, busy: 100 });
});

test("a node that is not heard of any more gets nothing while another exists", () => {
  const { table, clock, shares } = cluster({ silent: {}, alive: { cpu: 1 } });
  clock.ms += SCORE_DEFAULTS.silentAfterMs + 1;
  table.heartbeat("alive", { ...IDLE, cpu: 1 });
  expect(shares(100)).toEqual({ silent: 0, alive: 100 });
});

test("an answer is a sign of life", () => {
  const { table, clock, shares } = cluster({ a: {}, b: {} });
  clock.ms += SCORE_DEFAULTS.silentAfterMs + 1;
  table.begin("a")("answered");
  expect(shares(100)).toEqual({ a: 100, b: 0 });
});

test("when all are avoided, those for the lesser reason share the work", () => {
  const { shares } = cluster({
    full: { memory: 0.95 },
    draining: { draining: true },
    fuller: { memory: 0.96 },
  });
  const counts = shares(100);
  expect(counts["draining"]).toBe(0);
  expect(counts["full"]).toBe(100);
});

test("when every node is silent they are all in the running: it was this process that slept", () => {
  const { clock, shares } = cluster({ a: {}, b: {} });
  clock.ms += 60_000;
  expect(Object.values(shares(1000)).every((share) => share > 400)).toBe(true);
});

test("a node that has just come gets a quarter of what the others hold, not all until it is level", () => {
  const { pick, table, list } = cluster({ a: {}, b: {} });
  for (const id of ["a", "b"]) for (let i = 0; i < 40; i++) table.begin(id);
  table.seen("new");
  list.push({ id: "new" });
  table.heartbeat("new", IDLE);
  for (let i = 0; i < 20; i++) table.begin(pick());
  expect(table.get("new")?.inFlight).toBeGreaterThan(5);
  expect(table.get("new")?.inFlight).toBeLessThan(15);
});

test("an unknown node counts as cold and is no error", () => {
  const { table, random } = cluster({ a: {} });
  const list = [{ id: "a" }, { id: "unknown" }];
  for (let i = 0; i < 20; i++) expect(choose(list, table, SCORE_DEFAULTS, random).id).toBe("a");
});

test("choosing changes nothing: not the table, not the list", () => {
  const { table, list, shares } = cluster({ a: {}, b: { cpu: 0.5 } });
  const before = structuredClone([table.get("a"), table.get("b"), list]);
  shares(50);
  choose([...list, { id: "unknown" }], table, SCORE_DEFAULTS, Math.random);
  expect([table.get("a"), table.get("b"), list]).toEqual(before);
  expect(table.get("unknown")).toBeUndefined();
});

test("of a thousand nodes two are looked at", () => {
  const { table, list, random } = cluster(
    Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`node-${i}`, {}])),
  );
  const get = jest.spyOn(table, "get");
  for (let i = 0; i < 100; i++) choose(list, table, SCORE_DEFAULTS, random);
  expect(get).toHaveBeenCalledTimes(200);
});
