import { Hpa, type HpaSpec } from "../../../simulate/hpa.ts";

const SYNC_SECONDS = 15;

const steady: HpaSpec["behavior"] = {
  scaleUp: {
    tolerance: 0,
    stabilizationWindowSeconds: 60,
    policies: [{ type: "Pods", value: 1, periodSeconds: 60 }],
  },
  scaleDown: {
    tolerance: 0.75,
    stabilizationWindowSeconds: 600,
    policies: [{ type: "Pods", value: 1, periodSeconds: 600 }],
  },
};

/** The replicas after each sync, with a use of CPU that all pods have. */
function play(
  behavior: HpaSpec["behavior"],
  start: number,
  utilisations: readonly number[],
  bounds = [1, 20],
) {
  const [minReplicas = 1, maxReplicas = 20] = bounds;
  const hpa = new Hpa({ minReplicas, maxReplicas, behavior });
  let replicas = start;
  return utilisations.map((utilisation, index) => {
    const metric = { type: "utilisation", ratio: utilisation / 0.8, readyPods: replicas } as const;
    replicas = hpa.sync(index * SYNC_SECONDS, replicas, metric);
    return replicas;
  });
}

const during = (seconds: number, value: number) => Array<number>(seconds / SYNC_SECONDS).fill(value);

test("one pod more once the use has been above the target for the whole window, and one a minute from then on", () => {
  const replicas = play(steady, 2, during(240, 0.95));
  expect(replicas.slice(0, 4)).toEqual([2, 2, 2, 2]);
  expect(replicas[4]).toBe(3);
  expect(replicas.at(-1)).toBeLessThanOrEqual(6);
  for (let i = 4; i < replicas.length; i++)
    expect((replicas[i] ?? 0) - (replicas[i - 4] ?? 0)).toBeLessThanOrEqual(1);
});

test("a dip within the window keeps the replicas", () => {
  expect(play(steady, 2, [...during(45, 0.95), 0.5, ...during(45, 0.95)])).toEqual(Array(7).fill(2));
});

test("between the marks nothing happens", () => {
  expect(new Set(play(steady, 5, [...during(900, 0.75), ...during(900, 0.25)]))).toEqual(new Set([5]));
});

test("one pod fewer after ten minutes below the low mark, never below the minimum", () => {
  const replicas = play(steady, 4, during(3000, 0.05), [2, 20]);
  expect(replicas[600 / SYNC_SECONDS - 1]).toBe(4);
  expect(replicas[600 / SYNC_SECONDS]).toBe(3);
  expect(replicas.at(-1)).toBe(2);
});

test("a percentage and a number of pods: the larger step counts unless told otherwise", () => {
  const policies = [
    { type: "Percent", value: 100, periodSeconds: 30 },
    { type: "Pods", value: 2, periodSeconds: 30 },
  ];
  const at = (selectPolicy: string) =>
    play(
      { scaleUp: { stabilizationWindowSeconds: 0, selectPolicy, policies }, scaleDown: {} },
      4,
      [8],
      [1, 100],
    )[0];
  expect(at("Max")).toBe(8);
  expect(at("Min")).toBe(6);
  expect(at("Disabled")).toBe(4);
});

test("an external metric says how many pods are wanted; the maximum holds", () => {
  const hpa = new Hpa({
    minReplicas: 1,
    maxReplicas: 6,
    behavior: { scaleUp: { policies: [{ type: "Pods", value: 10, periodSeconds: 15 }] }, scaleDown: {} },
  });
  expect(hpa.sync(0, 3, { type: "wanted", replicas: 5 })).toBe(5);
  expect(hpa.sync(15, 5, { type: "wanted", replicas: 50 })).toBe(6);
});

test("without a ready pod nothing is concluded", () => {
  const hpa = new Hpa({ minReplicas: 1, maxReplicas: 6, behavior: steady });
  expect(hpa.sync(0, 3, { type: "utilisation", ratio: 9, readyPods: 0 })).toBe(3);
});
