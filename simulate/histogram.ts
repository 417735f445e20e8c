/** Steps to a doubling: a quantile is right within 3 %. */
const STEPS = 24;

/** Durations by their logarithm, with weights: millions of them in a few hundred numbers. */
export class Histogram {
  readonly #weights = new Map<number, number>();
  #total = 0;

  add(ms: number, weight: number): void {
    const bucket = Math.round(Math.log2(Math.max(ms, 0.01)) * STEPS);
    this.#weights.set(bucket, (this.#weights.get(bucket) ?? 0) + weight);
    this.#total += weight;
  }

  /** @param share 0 to 1. @returns milliseconds; NaN if nothing was added */
  quantile(share: number): number {
    let left = share * this.#total;
    for (const bucket of [...this.#weights.keys()].sort((a, b) => a - b)) {
      left -= this.#weights.get(bucket) ?? 0;
      if (left <= 0) return 2 ** (bucket / STEPS);
    }
    return Number.NaN;
  }
}
