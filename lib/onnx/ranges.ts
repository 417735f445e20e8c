/** How a tensor of real numbers lies in one of bytes: real = scale · (byte - zero). */
export interface Range {
  readonly scale: number;
  /** 0–255. */
  readonly zero: number;
}

/** Values kept of a tensor, over all samples: enough for its distribution, and little memory. */
const SAMPLES = 1 << 18;
/** Shares of the extremes that are tried as the range's ends. */
const MOST = 1;
const LEAST = 0.3;
const STEPS = 71;
const LEVELS = 255;
const SMALLEST_SCALE = 1e-9;

/** Finds the range of a tensor from values of it. */
export class RangeFinder {
  readonly #kept: Float32Array[] = [];
  readonly #share: number;
  readonly #random: () => number;
  #low = 0;
  #high = 0;

  /** @param samples how many tensors {@link see} will see */
  constructor(samples: number, random: () => number) {
    this.#share = Math.max(1, Math.floor(SAMPLES / samples));
    this.#random = random;
  }

  /** @throws Error on a number that is not finite */
  see(values: Float32Array): void {
    for (const value of values) {
      if (!Number.isFinite(value)) throw new Error("not a finite number");
      if (value < this.#low) this.#low = value;
      if (value > this.#high) this.#high = value;
    }
    if (values.length <= this.#share) {
      this.#kept.push(values.slice());
      return;
    }
    const kept = new Float32Array(this.#share);
    for (let i = 0; i < kept.length; i++) kept[i] = values[Math.floor(this.#random() * values.length)] ?? 0;
    this.#kept.push(kept);
  }

  /**
   * The range with the least squared error: the extremes are clipped ever more, and what clipping loses, the finer
   * steps win back, up to a point. 0 is always exact, as padding needs it to be.
   */
  best(): Range {
    let best: Range = { scale: SMALLEST_SCALE, zero: 0 };
    let least = Number.POSITIVE_INFINITY;
    for (let i = 0; i < STEPS; i++) {
      const keep = MOST - (i * (MOST - LEAST)) / (STEPS - 1);
      const scale = Math.fround(Math.max(((this.#high - this.#low) * keep) / LEVELS, SMALLEST_SCALE));
      // Not -0.
      const zero = Math.round((-this.#low * keep) / scale) + 0;
      const error = this.#error({ scale, zero });
      if (error < least) [best, least] = [{ scale, zero }, error];
    }
    return best;
  }

  #error({ scale, zero }: Range): number {
    let sum = 0;
    for (const values of this.#kept) {
      for (const value of values) {
        let byte = Math.round(value / scale) + zero;
        if (byte < 0) byte = 0;
        else if (byte > LEVELS) byte = LEVELS;
        sum += ((byte - zero) * scale - value) ** 2;
      }
    }
    return sum;
  }
}

/** Numbers from 0 to below 1, the same for the same seed (xorshift32, Marsaglia 2003). */
export function randomBy(seed: number): () => number {
  let state = seed | 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}
