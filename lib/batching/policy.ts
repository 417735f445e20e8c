/** Weight of the past at each new batch: the fit remembers about 1 / (1 - 0.95) = 20 batches. */
const DECAY = 0.95;

/**
 * Strength of the assumption "time is proportional to size", in items²: what the spread of sizes must exceed before
 * the measured slope counts more than the assumption. Probing one size above the bound spreads by about 0.06.
 */
const PRIOR_SPREAD = 0.05;

/** Every so many batches one may be an item larger than the fit allows. */
const PROBE_EVERY = 16;

/**
 * How large a batch may be so that the engine's time for it stays within a target.
 *
 * The time is taken as `duration ≈ a + b·n` and a, b are fitted online by exponentially weighted least squares, in
 * the incremental form of T. Finch, "Incremental calculation of weighted mean and variance" (2009). The slope is
 * drawn towards the proportional one, `mean duration / mean size`: where all sizes were equal, a and b cannot be told
 * apart, and this guess errs on the safe side above the sizes seen. It is also the slope's upper limit (a ≥ 0), as
 * zero is the lower (b ≥ 0), so that noise never gives a negative time.
 *
 * An engine that gets faster raises the bound by itself, as the mean falls. What the mean cannot show is a large `a`
 * seen from a small bound (30 ms + 1 ms an item looks like 31 ms an item from n = 1): hence the probes.
 */
export class BatchPolicy {
  readonly #targetMs: number;
  #batches = 0;
  #weight = 0;
  #meanSize = 0;
  #meanMs = 0;
  /** Weighted variance of sizes, and their covariance with durations. */
  #spread = 0;
  #covariance = 0;

  /** @param targetMs longest time one batch should take in the engine; default: no bound, the fit only estimates. */
  constructor(targetMs = Number.POSITIVE_INFINITY) {
    this.#targetMs = targetMs;
  }

  /** Learns from one batch that succeeded. */
  observe(size: number, durationMs: number): void {
    this.#batches++;
    this.#weight = DECAY * this.#weight + 1;
    const gain = 1 / this.#weight;
    const deltaSize = size - this.#meanSize;
    const deltaMs = durationMs - this.#meanMs;
    this.#meanSize += gain * deltaSize;
    this.#meanMs += gain * deltaMs;
    this.#spread = (1 - gain) * (this.#spread + gain * deltaSize * deltaSize);
    this.#covariance = (1 - gain) * (this.#covariance + gain * deltaSize * deltaMs);
  }

  /** Expected milliseconds for a batch of `size`; undefined before the first observation. */
  estimate(size: number): number | undefined {
    if (this.#batches === 0) return undefined;
    const proportional = this.#meanMs / this.#meanSize;
    const fitted = (this.#covariance + PRIOR_SPREAD * proportional) / (this.#spread + PRIOR_SPREAD);
    const slope = Math.min(Math.max(fitted, 0), proportional);
    return Math.max(0, this.#meanMs + slope * (size - this.#meanSize));
  }

  /**
   * Largest batch to send now: the largest whose estimate is within the target, at least 1; one more when it is time
   * to probe. Before the first observation there is nothing to go by: `maxBatchSize`.
   */
  limit(maxBatchSize: number): number {
    let fits = maxBatchSize;
    while (fits > 1 && !this.#fits(fits)) fits--;
    const probe = this.#batches % PROBE_EVERY === PROBE_EVERY - 1 && this.#fits(fits);
    return Math.min(maxBatchSize, probe ? fits + 1 : fits);
  }

  #fits(size: number): boolean {
    return (this.estimate(size) ?? 0) <= this.#targetMs;
  }
}

/** A policy for each kind of slot: what takes other threads takes another time. */
export class BatchPolicies {
  readonly #targetMs: number | undefined;
  readonly #policies = new Map<string, BatchPolicy>();

  /** @param targetMs as for {@link BatchPolicy} */
  constructor(targetMs: number | undefined) {
    this.#targetMs = targetMs;
  }

  of(kind: string): BatchPolicy {
    let policy = this.#policies.get(kind);
    if (!policy) {
      policy = new BatchPolicy(this.#targetMs);
      this.#policies.set(kind, policy);
    }
    return policy;
  }

  /** The largest batch that any kind may have now. */
  limit(maxBatchSize: number): number {
    const limits = [...this.#policies.values()].map((policy) => policy.limit(maxBatchSize));
    return limits.length === 0 ? maxBatchSize : Math.max(...limits);
  }
}
