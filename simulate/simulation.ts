import { Random } from "../testkit/random.ts";
import { VirtualClock } from "../testkit/virtual-clock.ts";
import { Cluster, type ColdStart, type Ending, type ModelOptions } from "./cluster.ts";
import { Histogram } from "./histogram.ts";
import { Hpa, type HpaSpec } from "./hpa.ts";
import { type CpuRule, metricOf, type Observation, type PolicyName } from "./policies.ts";
import type { Trace } from "./traces.ts";

export interface SimulationOptions {
  readonly trace: Trace;
  readonly policy: PolicyName;
  readonly hpa: HpaSpec;
  readonly rule: CpuRule;
  readonly model: ModelOptions;
  readonly cold: ColdStart;
  readonly seed: number;
}

/** One period of the autoscaler. */
export interface Period {
  /** Seconds from the trace's start. */
  readonly at: number;
  readonly arrivals: number;
  readonly ready: number;
  readonly desired: number;
  readonly cpu: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Requests a second. */
  readonly refused: number;
  readonly late: number;
}

export interface Result {
  readonly policy: PolicyName;
  readonly periods: readonly Period[];
  readonly requests: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly refused: number;
  readonly late: number;
  readonly podHours: number;
  readonly mostPods: number;
  /** Requests that were simulated one by one; the others stand for them. */
  readonly simulated: number;
}

/** The HPA controller's own (`--horizontal-pod-autoscaler-sync-period`). */
const PERIOD_SECONDS = 15;

/**
 * In a calm period only this much is simulated request by request, after as much again to get going, and stands for
 * the whole: with queues that empty many times a second, it would go on like that.
 */
const SAMPLE_SECONDS = 0.5;

/** Above this share of the capacity queues may build up over more than a sample. */
const CALM_LOAD = 0.9;

/**
 * Runs a trace against the real batcher and the real choice of node, with pods whose engine only takes time, and the
 * HPA controller's algorithm. Time is the clock's own; chance repeats with the seed.
 */
export async function simulate(options: SimulationOptions): Promise<Result> {
  const { trace, policy, model, seed } = options;
  const clock = new VirtualClock();
  const random = new Random(seed);
  const hpa = new Hpa(options.hpa);
  const all = new Histogram();
  const totals: Record<Ending, number> = { answered: 0, refused: 0, late: 0 };
  const itemsPerSecond = (1000 * model.cores) / (model.itemMs + model.baseMs / model.maxBatchSize);

  let weight = 0;
  let simulated = 0;
  let latencies = new Histogram();
  let endings: Record<Ending, number> = { answered: 0, refused: 0, late: 0 };
  const cluster = new Cluster(clock, random, model, options.cold, (ending, ms) => {
    if (weight === 0) return;
    simulated++;
    totals[ending] += weight;
    endings[ending] += weight;
    if (ending !== "answered") return;
    all.add(ms, weight);
    latencies.add(ms, weight);
  });

  const traffic = async (from: number, seconds: number) => {
    const end = (from + seconds) * 1000;
    while (clock.now() < end) {
      const rate = trace.rate(clock.now() / 1000);
      const next = rate > 0 ? clock.now() + 1000 * random.exponential(rate) : end;
      await clock.runUntil(Math.min(next, end));
      if (next < end) cluster.request();
    }
  };

  const start = Math.ceil((trace.rate(0) / itemsPerSecond) * 1.5);
  cluster.scale(Math.min(options.hpa.maxReplicas, Math.max(options.hpa.minReplicas, start)), true);
  const periods: Period[] = [];
  const observed: Observation[] = [];
  let podSeconds = 0;
  let mostPods = 0;

  for (let at = 0; at < trace.seconds; at += PERIOD_SECONDS) {
    latencies = new Histogram();
    endings = { answered: 0, refused: 0, late: 0 };
    const end = at + PERIOD_SECONDS;
    const capacity = cluster.ready * itemsPerSecond;
    const peak = Math.max(trace.rate(at), trace.rate(end));
    const isCalm = !cluster.changing && cluster.queued < capacity / 20 && peak < CALM_LOAD * capacity;
    const seconds = isCalm ? SAMPLE_SECONDS : PERIOD_SECONDS;
    if (isCalm) {
      await clock.runUntil((end - 2 * SAMPLE_SECONDS) * 1000);
      await traffic(end - 2 * SAMPLE_SECONDS, SAMPLE_SECONDS);
      cluster.takeCpu(1);
    }
    weight = PERIOD_SECONDS / seconds;
    await traffic(end - seconds, seconds);
    weight = 0;

    const cpu = cluster.takeCpu(seconds * 1000);
    const arrivals = (endings.answered + endings.refused + endings.late) / PERIOD_SECONDS;
    observed.push({
      at: end,
      ready: cluster.ready,
      desired: cluster.desired,
      cpu,
      arrivals,
      queued: cluster.queued,
    });
    if (observed.length > 2 + options.rule.downSeconds / PERIOD_SECONDS) observed.shift();
    podSeconds += cluster.running * PERIOD_SECONDS;
    mostPods = Math.max(mostPods, cluster.ready);
    // What a pod did is known one scrape later.
    const metric = metricOf(policy, observed.slice(0, -1), { rule: options.rule, itemsPerSecond });
    if (metric) cluster.scale(hpa.sync(end, cluster.desired, metric));
    periods.push({
      at,
      arrivals,
      ready: cluster.ready,
      desired: cluster.desired,
      cpu,
      p50Ms: latencies.quantile(0.5),
      p99Ms: latencies.quantile(0.99),
      refused: endings.refused / PERIOD_SECONDS,
      late: endings.late / PERIOD_SECONDS,
    });
  }

  return {
    policy,
    periods,
    requests: totals.answered + totals.refused + totals.late,
    p50Ms: all.quantile(0.5),
    p99Ms: all.quantile(0.99),
    refused: totals.refused,
    late: totals.late,
    podHours: podSeconds / 3600,
    mostPods,
    simulated,
  };
}
