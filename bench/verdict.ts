/** What a benchmark should reach. */
export interface Bar {
  /** As it reads in a sentence: "images/s of the bound at 32 connections". */
  readonly what: string;
  readonly value: number;
  readonly atLeast?: number;
  readonly atMost?: number;
}

/** One line that says which bars were missed, and by how much. */
export function verdict(bars: readonly Bar[]): string {
  const missed = bars.filter(
    ({ value, atLeast, atMost }) => !(value >= (atLeast ?? -Infinity) && value <= (atMost ?? Infinity)),
  );
  if (missed.length === 0) return `verdict: all ${bars.length} bars met`;
  const told = missed.map(({ what, value, atLeast, atMost }) => {
    const bar = atLeast === undefined ? `at most ${atMost}` : `at least ${atLeast}`;
    return `${Number(value.toPrecision(3))} ${what} (bar: ${bar})`;
  });
  return `verdict: ${missed.length} of ${bars.length} bars missed: ${told.join("; ")}`;
}
