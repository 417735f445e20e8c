/** One scaling policy of `autoscaling/v2`. */
export interface HpaPolicy {
  readonly type: string;
  readonly value: number;
  readonly periodSeconds: number;
}

/** One direction of an autoscaler's `behavior`. */
export interface HpaRules {
  readonly stabilizationWindowSeconds?: number | undefined;
  /** @default 0.1 */
  readonly tolerance?: number | string | undefined;
  /** @default "Max" */
  readonly selectPolicy?: string | undefined;
  readonly policies?: readonly HpaPolicy[] | undefined;
}

/** What of a HorizontalPodAutoscaler's spec decides. */
export interface HpaSpec {
  readonly minReplicas: number;
  readonly maxReplicas: number;
  readonly behavior: { readonly scaleUp: HpaRules; readonly scaleDown: HpaRules };
}

/** What the metric says at one sync. */
export type HpaMetric =
  /** Use of a resource over the ready pods, as a share of the target: 1 is on target. */
  | { readonly type: "utilisation"; readonly ratio: number; readonly readyPods: number }
  /** An external metric with an average value of 1: the wanted number of pods. */
  | { readonly type: "wanted"; readonly replicas: number };

interface Timed {
  readonly at: number;
  readonly value: number;
}

const DEFAULT_TOLERANCE = 0.1;

/**
 * The algorithm of Kubernetes' HorizontalPodAutoscaler controller (`pkg/controller/podautoscaler/horizontal.go` and
 * `replica_calculator.go`), for one metric: recommendation, stabilisation, rate limits, bounds. That it takes the
 * decisions of the real controller is tested against that controller.
 */
export class Hpa {
  readonly #spec: HpaSpec;
  readonly #recommendations: Timed[] = [];
  readonly #ups: Timed[] = [];
  readonly #downs: Timed[] = [];

  constructor(spec: HpaSpec) {
    this.#spec = spec;
  }

  /**
   * One sync of the controller.
   *
   * @param now seconds
   * @param current the Deployment's replicas
   * @returns the replicas it shall have
   */
  sync(now: number, current: number, metric: HpaMetric): number {
    const { minReplicas, maxReplicas, behavior } = this.#spec;
    if (current === 0) return 0;
    if (current > maxReplicas) return maxReplicas;
    if (current < minReplicas) return minReplicas;
    if (this.#recommendations.length === 0) this.#recommendations.push({ at: now, value: current });
    const stable = this.#stabilised(now, current, this.#recommend(current, metric));
    const limited =
      stable > current
        ? Math.min(stable, maxReplicas, Math.max(current, this.#limit(now, current, behavior.scaleUp, 1)))
        : Math.max(stable, minReplicas, Math.min(current, this.#limit(now, current, behavior.scaleDown, -1)));
    const desired = stable === current ? current : limited;
    if (desired > current) this.#ups.push({ at: now, value: desired - current });
    if (desired < current) this.#downs.push({ at: now, value: current - desired });
    return desired;
  }

  #recommend(current: number, metric: HpaMetric): number {
    if (metric.type === "wanted") {
      const ratio = metric.replicas / current;
      return this.#isWithinTolerance(ratio) ? current : Math.ceil(metric.replicas);
    }
    if (metric.readyPods === 0 || this.#isWithinTolerance(metric.ratio)) return current;
    return Math.ceil(metric.ratio * metric.readyPods);
  }

  #isWithinTolerance(ratio: number): boolean {
    const { scaleUp, scaleDown } = this.#spec.behavior;
    return ratio <= 1 + toleranceOf(scaleUp) && ratio >= 1 - toleranceOf(scaleDown);
  }

  /** The most cautious of the recommendations in each direction's window. */
  #stabilised(now: number, current: number, desired: number): number {
    const { scaleUp, scaleDown } = this.#spec.behavior;
    const upFrom = now - (scaleUp.stabilizationWindowSeconds ?? 0);
    const downFrom = now - (scaleDown.stabilizationWindowSeconds ?? 300);
    let up = desired;
    let down = desired;
    for (const { at, value } of this.#recommendations) {
      if (at > upFrom) up = Math.min(up, value);
      if (at > downFrom) down = Math.max(down, value);
    }
    forget(this.#recommendations, Math.min(upFrom, downFrom));
    this.#recommendations.push({ at: now, value: desired });
    return Math.min(Math.max(current, up), down);
  }

  /** How far the policies let it go, from what there was when their periods began. */
  #limit(now: number, current: number, rules: HpaRules, sign: 1 | -1): number {
    const { policies = [], selectPolicy = "Max" } = rules;
    if (selectPolicy === "Disabled") return current;
    const limits = policies.map(({ type, value, periodSeconds }) => {
      const since = (events: readonly Timed[]) =>
        events.filter(({ at }) => at > now - periodSeconds).reduce((sum, event) => sum + event.value, 0);
      const before = current - since(this.#ups) + since(this.#downs);
      if (type === "Pods") return before + sign * value;
      return sign > 0 ? Math.ceil(before * (1 + value / 100)) : Math.trunc(before * (1 - value / 100));
    });
    const farthest = (selectPolicy === "Max") === sign > 0;
    return farthest ? Math.max(...limits) : Math.min(...limits);
  }
}

function toleranceOf({ tolerance }: HpaRules): number {
  return tolerance === undefined ? DEFAULT_TOLERANCE : Number(tolerance);
}

function forget(events: Timed[], from: number): void {
  while (events[0] && events[0].at <= from) events.shift();
}
