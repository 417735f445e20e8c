import { type ErrorCode, errorCode } from "../errors.ts";
import { pause, type Scope, timeLeft } from "./scope.ts";

/**
 * Errors after which another replica may well succeed, and the attempts each is worth. Deadlines and 429s are not
 * among them: that is a storm. What killed an engine may be a poison, which the batcher there has tried twice by now.
 */
const ATTEMPTS: Readonly<Partial<Record<ErrorCode, number>>> = {
  MODEL_UNAVAILABLE: 3,
  DRAINING: 3,
  ENGINE_CRASHED: 2,
};

export interface RetryOptions {
  /** Mean wait before the second attempt, milliseconds; doubles with each further one. @default 50 */
  readonly delayMs?: number;
  /** Share of calls that may be retries, over the long run. @default 0.2 */
  readonly budget?: number;
  /** A number from 0 up to but not including 1. @default Math.random */
  readonly random?: () => number;
}

/** Retries saved up while nothing fails. */
const MAX_TOKENS = 100;

/**
 * Does a failed call again, within a budget and inside its scope: one whose deadline would pass while it waits is not
 * tried again, one whose caller gives up ends its wait.
 *
 * The budget is a token bucket (as gRPC's retry throttling, proposal A6): each call adds a fraction of a token, each
 * retry takes one, so that a cluster in trouble is not buried under retries.
 */
export class Retry {
  readonly #delayMs: number;
  readonly #budget: number;
  readonly #random: () => number;
  #tokens = MAX_TOKENS;

  constructor({ delayMs = 50, budget = 0.2, random = Math.random }: RetryOptions = {}) {
    this.#delayMs = delayMs;
    this.#budget = budget;
    this.#random = random;
  }

  /**
   * Runs `attempt`, again while its error is worth it. `onRetry` hears of each repetition.
   *
   * @throws what the last attempt threw, or the scope's reason if its caller gave up meanwhile
   */
  async run<R>(scope: Scope, attempt: () => Promise<R>, onRetry?: () => void): Promise<R> {
    this.#tokens = Math.min(MAX_TOKENS, this.#tokens + this.#budget);
    for (let tried = 1; ; tried++) {
      try {
        return await attempt();
      } catch (error) {
        if (tried >= (ATTEMPTS[errorCode(error)] ?? 1) || this.#tokens < 1) throw error;
        const delay = this.#delayMs * 2 ** (tried - 1) * (0.5 + this.#random());
        if (delay >= timeLeft(scope)) throw error;
        this.#tokens -= 1;
        onRetry?.();
        await pause(delay, scope);
      }
    }
  }
}
