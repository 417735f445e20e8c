/** A batch that failed as a whole. */
export interface Failure {
  /** Its items. */
  readonly size: number;
  /**
   * How: the runtime refused it, or the engine died under it; of its own accord, or killed by someone else. Or it was
   * not computed at all, which is no item's fault.
   */
  readonly how: "refused" | "crashed" | "killed" | "not computed";
  /** Engines that died before under its one item, when it was alone. */
  readonly deathsAlone: number;
}

/** What becomes of its items. */
export type Consequence =
  /** They are tried again in parts of at most so many, one after the other. */
  | { readonly tryAgain: number }
  /** Its items fail with the batch's error. */
  | "failed"
  /** Its one item is what kills engines. */
  | "poison";

/**
 * Finds the item whose fault it is. A batch that was refused is halved until the bad item is alone. One that the
 * engine died under is not: halving would let the bad item kill again and again. Its items are tried alone. What was
 * alone when two engines died is to blame, unless the second was killed by someone else: nobody knows then.
 */
export function consequence({ size, how, deathsAlone }: Failure): Consequence {
  if (how === "not computed") return "failed";
  if (how === "refused") return size === 1 ? "failed" : { tryAgain: Math.ceil(size / 2) };
  if (size > 1 || deathsAlone === 0) return { tryAgain: 1 };
  return how === "killed" ? "failed" : "poison";
}
