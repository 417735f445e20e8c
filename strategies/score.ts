import { type LoadReport, missesAt, type NodeLoad, paceAt } from "../lib/load/table.ts";

export interface ScoreOptions {
  /**
   * How much longer work takes on a node whose CPU is fully used, relative to an idle one: 1 doubles it. Unit: none.
   * Minimum 0.
   * @default 1
   */
  readonly cpuWeight?: number;
  /**
   * The same for full memory. It grows with the fourth power, so only the last quarter matters. Minimum 0.
   * @default 1
   */
  readonly memoryWeight?: number;
  /**
   * Share of the memory limit from which on a node is chosen only where no other is left. 0 to 1.
   * @default 0.9
   */
  readonly memoryHighWater?: number;
  /**
   * Requests ahead that a missed one counts for. Minimum 0.
   * @default 4
   */
  readonly missWeight?: number;
  /**
   * How much longer work is taken to last on a node that has just been seen: caches and compiled code are cold. It
   * falls to nothing over `rampMs`. Minimum 0.
   * @default 3
   */
  readonly coldWeight?: number;
  /**
   * Milliseconds until a new node counts in full. Minimum 0.
   * @default 10000
   */
  readonly rampMs?: number;
  /**
   * Milliseconds without heartbeat and answer from which on a node is chosen only where no other is left.
   * @default 1.5 heartbeat intervals of the broker
   */
  readonly silentAfterMs?: number;
}

export const SCORE_DEFAULTS: Required<ScoreOptions> = {
  cpuWeight: 1,
  memoryWeight: 1,
  memoryHighWater: 0.9,
  missWeight: 4,
  coldWeight: 3,
  rampMs: 10_000,
  silentAfterMs: 3000,
};

/** CPU at least of a node that has not told: neither idle nor busy. */
const UNKNOWN_CPU = 0.5;

/** Others' work is told once a heartbeat and is done within seconds. */
const BACKLOG_HALF_LIFE_MS = 1000;

/** However little CPU a node gets, it gets some. */
const MAX_WAIT = 0.95;

/**
 * How long one more request would take on this node, in units of one request on an idle node of pace 1; lower is
 * better:
 *
 *     pace                                                                how fast it answered us lately
 *       · (1 + ours in flight + backlog of others + missWeight · misses)  what is ahead of it
 *       · (1 + cpuWeight · cpu) / (1 − wait)                              how slowly that is worked off
 *       · (1 + memoryWeight · memory⁴)                                    how close to trouble the node is
 *       · (1 + coldWeight · what is left of the ramp)                     how new it is
 *
 * Never falls when one of them rises. What is ours is counted here and now, so many callers with the same stale
 * report do not all run to the same node; others' backlog fades with the report's age.
 *
 * @param now same clock as the times in `node`
 * @param other the node it is compared with: what is not known of this one is taken to be as there, so that a
 *   newcomer on a crowded host does not look like the only one with a free CPU
 */
export function score(
  node: NodeLoad,
  now: number,
  options: Required<ScoreOptions> = SCORE_DEFAULTS,
  other: NodeLoad = node,
): number {
  const { cpu, wait, memory } = node.report ?? unknownReport(other);
  const pace = paceAt(node, now, other.paceMs ?? node.paceMs ?? 1);
  const ahead = node.inFlight + backlogAt(node, now) + options.missWeight * missesAt(node, now);
  const slowness = (1 + options.cpuWeight * cpu) / (1 - Math.min(wait, MAX_WAIT));
  const pressure = 1 + options.memoryWeight * memory ** 4;
  const left = options.rampMs > 0 ? 1 - Math.min(1, (now - node.since) / options.rampMs) : 0;
  return pace * (1 + ahead) * slowness * pressure * (1 + options.coldWeight * left);
}

/** Whether a request is better off on `a` than on `b`. */
export function isBetter(
  a: NodeLoad,
  b: NodeLoad,
  now: number,
  options: Required<ScoreOptions> = SCORE_DEFAULTS,
): boolean {
  return score(a, now, options, b) < score(b, now, options, a);
}

function unknownReport({ report }: NodeLoad): Pick<LoadReport, "cpu" | "wait" | "memory"> {
  return { cpu: Math.max(UNKNOWN_CPU, report?.cpu ?? 0), wait: report?.wait ?? 0, memory: 0 };
}

function backlogAt({ backlog, reportedAt }: NodeLoad, now: number): number {
  return backlog === 0 ? 0 : backlog * 2 ** ((reportedAt - now) / BACKLOG_HALF_LIFE_MS);
}

/** Why a node is kept for the case that no better one is left; the higher, the later its turn. */
export const AVOID = { no: 0, memory: 1, draining: 2, silent: 3 } as const;

/**
 * Whether a node should get work at all. A score only weighs; these are reasons that no lack of work outweighs.
 *
 * @param now same clock as the times in `node`
 */
export function avoidance(
  node: NodeLoad,
  now: number,
  options: Required<ScoreOptions> = SCORE_DEFAULTS,
): number {
  if (now - node.heardAt > options.silentAfterMs) return AVOID.silent;
  if (node.report?.draining) return AVOID.draining;
  return (node.report?.memory ?? 0) >= options.memoryHighWater ? AVOID.memory : AVOID.no;
}
