import { type SimulationOptions, simulate } from "../../../simulate/simulation.ts";
import type { Trace } from "../../../simulate/traces.ts";
import { VirtualClock } from "../../../testkit/virtual-clock.ts";

const steps: Trace = {
  name: "steps",
  seconds: 900,
  rate: (second) => (second < 300 ? 20 : 200),
};

const OPTIONS: SimulationOptions = {
  trace: steps,
  policy: "queue",
  hpa: {
    minReplicas: 1,
    maxReplicas: 10,
    behavior: {
      scaleUp: { stabilizationWindowSeconds: 0, policies: [{ type: "Pods", value: 4, periodSeconds: 15 }] },
      scaleDown: {
        stabilizationWindowSeconds: 300,
        policies: [{ type: "Pods", value: 1, periodSeconds: 60 }],
      },
    },
  },
  rule: { highPercent: 80, upSeconds: 60, lowPercent: 20, downSeconds: 600 },
  model: {
    cores: 1,
    baseMs: 2,
    itemMs: 18,
    spread: 0.1,
    maxBatchSize: 8,
    maxQueueSize: 64,
    deadlineMs: 2000,
  },
  cold: { nodeSeconds: 0, pullSeconds: 5, startSeconds: 5, podsPerNode: 100 },
  seed: 7,
};

test("as many requests end as the trace brings, and the same seed tells the same story", async () => {
  const [first, second] = [await simulate(OPTIONS), await simulate(OPTIONS)];
  const expected = 300 * 20 + 600 * 200;
  expect(first.requests).toBeGreaterThan(0.95 * expected);
  expect(first.requests).toBeLessThan(1.05 * expected);
  expect(first.periods).toEqual(second.periods);
  expect(await simulate({ ...OPTIONS, seed: 8 })).not.toEqual(first);
});

test("more than the pods can do is refused or late, until the new ones are ready", async () => {
  const { periods } = await simulate(OPTIONS);
  const lost = (from: number, to: number) =>
    periods
      .filter(({ at }) => at >= from && at < to)
      .reduce((sum, { refused, late }) => sum + refused + late, 0);
  expect(lost(0, 300)).toBe(0);
  expect(lost(300, 360)).toBeGreaterThan(0);
  expect(lost(600, 900)).toBe(0);
  expect(periods.at(-1)?.ready).toBeGreaterThanOrEqual(4);
});

test("a fixed number of pods loses what is beyond their capacity", async () => {
  const fixed = { ...OPTIONS.hpa, minReplicas: 2, maxReplicas: 2 };
  const { periods, refused, late } = await simulate({ ...OPTIONS, hpa: fixed });
  // Two pods do 2 · 1000 / (18 + 2 / 8) = 110 a second of the 200.
  const share = (refused + late) / (600 * 200);
  expect(share).toBeGreaterThan(0.35);
  expect(share).toBeLessThan(0.55);
  expect(new Set(periods.map(({ ready }) => ready))).toEqual(new Set([2]));
});

test("timers fire in the order of their time, those of one moment in the order they were set, cancelled ones never", async () => {
  const clock = new VirtualClock();
  const fired: string[] = [];
  const set = (name: string, ms: number) =>
    clock.setTimeout(() => {
      fired.push(`${name}@${clock.now()}`);
      if (name === "c") void Promise.resolve().then(() => set("late", 0));
    }, ms);
  for (const [name, ms] of [
    ["a", 5],
    ["b", 1],
    ["c", 3],
    ["d", 3],
    ["e", 2],
  ] as const)
    if (name === "e") clock.clearTimeout(set(name, ms));
    else set(name, ms);
  await clock.runUntil(4);
  expect(fired).toEqual(["b@1", "c@3", "d@3", "late@3"]);
  expect(clock.now()).toBe(4);
  await clock.runUntil(100);
  expect(fired.at(-1)).toBe("a@5");
});
