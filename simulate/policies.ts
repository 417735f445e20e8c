import type { HpaMetric } from "./hpa.ts";

/** What Prometheus and metrics-server know at one moment, over the ready pods. */
export interface Observation {
  /** Seconds. */
  readonly at: number;
  readonly ready: number;
  /** Replicas that the Deployment shall have. */
  readonly desired: number;
  /** Mean share of the CPU limit. */
  readonly cpu: number;
  /** Requests a second that came in, refused ones too. */
  readonly arrivals: number;
  /** Items that wait. */
  readonly queued: number;
}

/** The high and the low mark of the customer's rule, and how long each must hold. */
export interface CpuRule {
  readonly highPercent: number;
  readonly upSeconds: number;
  readonly lowPercent: number;
  readonly downSeconds: number;
}

export type PolicyName = "cpu" | "rule" | "queue";

/**
 * The metric that each policy's autoscaler reads, from what was observed until now, the newest last: `cpu` is
 * metrics-server's, `rule` and `queue` are the recording rules of `k8s/scaling/rules.yaml`.
 */
export function metricOf(
  policy: PolicyName,
  observed: readonly Observation[],
  { rule, itemsPerSecond }: { readonly rule: CpuRule; readonly itemsPerSecond: number },
): HpaMetric | undefined {
  const last = observed.at(-1);
  if (!last) return undefined;
  switch (policy) {
    case "cpu":
      return { type: "utilisation", ratio: last.cpu / (rule.highPercent / 100), readyPods: last.ready };
    case "rule": {
      const busy = average(observed, rule.upSeconds) > rule.highPercent / 100;
      const idle = average(observed, rule.downSeconds) < rule.lowPercent / 100;
      if (busy && isUnchanged(observed, rule.upSeconds))
        return { type: "wanted", replicas: last.desired + 1 };
      if (idle && isUnchanged(observed, rule.downSeconds))
        return { type: "wanted", replicas: last.desired - 1 };
      return { type: "wanted", replicas: last.desired };
    }
    case "queue": {
      const arrivals = mean(within(observed, ARRIVALS_SECONDS).map((each) => each.arrivals));
      const wanted = (arrivals / BUSY_SHARE + last.queued / CLEARED_IN_SECONDS) / itemsPerSecond;
      return { type: "wanted", replicas: Math.ceil(wanted) };
    }
  }
}

/** The `queue` rule's: the window of its rate, the share of a pod that arrivals may take, and how soon a queue is gone. */
const ARRIVALS_SECONDS = 60;
const BUSY_SHARE = 0.75;
const CLEARED_IN_SECONDS = 0.25;

/** Mean use of CPU over the last seconds. */
function average(observed: readonly Observation[], seconds: number): number {
  return mean(within(observed, seconds).map(({ cpu }) => cpu));
}

/** Whether the number of replicas has been the same for so long, and is known for so long. */
function isUnchanged(observed: readonly Observation[], seconds: number): boolean {
  const last = observed.at(-1);
  const [first] = observed;
  if (!last || !first || first.at > last.at - seconds) return false;
  return observed.every(({ at, desired }) => at < last.at - seconds || desired === last.desired);
}

function within(observed: readonly Observation[], seconds: number): readonly Observation[] {
  const from = (observed.at(-1)?.at ?? 0) - seconds;
  return observed.filter(({ at }) => at > from);
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
}
