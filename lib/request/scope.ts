import type { Clock } from "./clock.ts";

/**
 * What every step of a request has to heed, set once where the request enters a process and handed down whole.
 */
export interface Scope {
  /** When the answer is worthless, on `clock`; Infinity: never. */
  readonly deadline: number;
  /** Aborts when the caller gave up; its reason is the error to answer with. */
  readonly signal: AbortSignal;
  readonly clock: Clock;
  /** For logs and errors. */
  readonly requestId: string;
}
