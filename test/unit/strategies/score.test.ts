import { type LoadReport, type NodeLoad, newcomer } from "../../../lib/load/table.ts";
import { AVOID, avoidance, isBetter, SCORE_DEFAULTS, score } from "../../../strategies/score.ts";

const NOW = 100_000;

const IDLE: LoadReport = { cpu: 0, wait: 0, memory: 0, queued: 0, inFlight: 0, draining: false };

/** A node long known and heard just now. */
function node(changes: Partial<NodeLoad> = {}, report: Partial<LoadReport> = {}): NodeLoad {
  const known = { ...newcomer(NOW), since: 0, report: { ...IDLE, ...report } };
  return { ...known, ...changes };
}

describe("score", () => {
  test("of an idle node is 1", () => {
    expect(score(node(), NOW)).toBe(1);
  });

  test.each([
    ["one request in flight doubles it", node({ inFlight: 1 }), 2],
    ["work of others counts as ours", node({ backlog: 3 }), 4],
    ["work of others fades with the report's age", node({ backlog: 8, reportedAt: NOW - 2000 }), 3],
    ["a miss counts for four requests", node({ misses: 1 }), 5],
    ["misses fade", node({ misses: 4, missedAt: NOW - 2000 }), 5],
    ["a busy CPU doubles it", node({}, { cpu: 1 }), 2],
    ["a neighbour that takes half doubles it", node({}, { wait: 0.5 }), 2],
    ["full memory doubles it", node({}, { memory: 1 }), 2],
    ["half-full memory hardly matters", node({}, { memory: 0.5 }), 1.0625],
    ["a node just seen, with a report, lasts four times as long", node({ since: NOW }), 4],
    ["half the ramp leaves half of that", node({ since: NOW - 5000 }), 2.5],
    ["a node never heard of is cold and half busy", newcomer(NOW), 6],
    ["the factors multiply", node({ inFlight: 3 }, { cpu: 0.5, wait: 0.5 }), 12],
  ])("%s", (_, figures, expected) => {
    expect(score(figures, NOW)).toBeCloseTo(expected, 10);
  });

  const STEPS = [0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1];
  test.each<[string, (step: number) => NodeLoad]>([
    ["CPU", (step) => node({ inFlight: 2 }, { cpu: step })],
    ["wait", (step) => node({ inFlight: 2 }, { wait: step })],
    ["memory", (step) => node({ inFlight: 2 }, { memory: step })],
    ["own requests in flight", (step) => node({ inFlight: step * 100 }, { cpu: 0.3 })],
    ["work of others", (step) => node({ backlog: step * 100 }, { cpu: 0.3 })],
    ["misses", (step) => node({ misses: step * 16 }, { cpu: 0.3 })],
    ["newness", (step) => node({ since: NOW * step })],
  ])("never falls when %s rises, and rises over the whole range", (_, at) => {
    const scores = STEPS.map((step) => score(at(step), NOW));
    expect(scores).toEqual(scores.toSorted((a, b) => a - b));
    expect(scores.at(-1)).toBeGreaterThan(scores[0] ?? Number.NaN);
  });

  test("stays finite however little CPU the node gets", () => {
    expect(score(node({}, { wait: 1 }), NOW)).toBeLessThan(100);
  });

  test("a ramp of 0 ms means no slow start", () => {
    expect(score(node({ since: NOW }), NOW, { ...SCORE_DEFAULTS, rampMs: 0 })).toBe(1);
  });
});

describe("isBetter", () => {
  const paced = (paceMs: number, changes: Partial<NodeLoad> = {}) =>
    node({ paceMs, pacedAt: NOW, ...changes });

  test.each([
    ["a fast node over a slow one", paced(20), paced(80), true],
    ["not a slow one over a fast one", paced(80), paced(20), false],
    [
      "a slow idle node over a fast one with more than four times the work",
      paced(80),
      paced(20, { inFlight: 4 }),
      true,
    ],
    ["not while that has less", paced(80), paced(20, { inFlight: 2 }), false],
    ["not one of two equals", paced(20), paced(20), false],
    ["a node whose pace is not known by its work alone", node(), paced(1, { inFlight: 1 }), true],
    ["and the other way round", paced(1000), node({ inFlight: 1 }), true],
    [
      "a slow node again as its pace is long ago",
      paced(80, { pacedAt: NOW - 8000 }),
      paced(20, { inFlight: 1 }),
      true,
    ],
    ["not yet when it is not", paced(80, { pacedAt: NOW - 1000 }), paced(20, { inFlight: 1 }), false],
    [
      "an old node on a crowded host over a newcomer there",
      node({}, { cpu: 0.8, wait: 0.8 }),
      newcomer(NOW),
      true,
    ],
  ])("prefers %s", (_, a, b, expected) => {
    expect(isBetter(a, b, NOW)).toBe(expected);
  });
});

describe("avoidance", () => {
  test.each([
    ["a healthy node is not avoided", node(), AVOID.no],
    ["a busy one neither", node({ inFlight: 50 }, { cpu: 1, wait: 1 }), AVOID.no],
    ["memory just below the mark is fine", node({}, { memory: 0.899 }), AVOID.no],
    ["memory at the mark is not", node({}, { memory: 0.9 }), AVOID.memory],
    ["a draining node is avoided", node({}, { draining: true }), AVOID.draining],
    ["a silent node is avoided", node({ heardAt: NOW - 3001 }), AVOID.silent],
    ["one heartbeat late is not silent", node({ heardAt: NOW - 2999 }), AVOID.no],
    ["the worst reason counts", node({ heardAt: 0 }, { draining: true, memory: 1 }), AVOID.silent],
    ["a node never heard of is not avoided", newcomer(NOW), AVOID.no],
  ])("%s", (_, figures, expected) => {
    expect(avoidance(figures, NOW)).toBe(expected);
  });
});
