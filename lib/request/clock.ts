/** Time as the batcher sees it; a test injects one that it moves by hand. */
export interface Clock {
  /** Milliseconds since an arbitrary start; never goes back. */
  now(): number;
  /**
   * Calls `fn` once, about `ms` milliseconds from now. May come early (Node rounds, and {@link systemClock} caps):
   * who must not act early looks at `now()` and sets the rest again.
   */
  setTimeout(fn: () => void, ms: number): unknown;
  /** @param handle what `setTimeout` gave; one that fired already is ignored. */
  clearTimeout(handle: unknown): void;
}

/** Longest delay Node's `setTimeout` keeps; it turns a longer one into 1 ms. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

/** The process's monotonic clock and Node's timers. */
export const systemClock: Clock = {
  now: () => performance.now(),
  setTimeout: (fn, ms) => setTimeout(fn, Math.min(ms, MAX_TIMEOUT_MS)),
  clearTimeout: (handle) => clearTimeout(handle as NodeJS.Timeout),
};
