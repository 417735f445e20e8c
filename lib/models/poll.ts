import { type Clock, systemClock } from "../request/clock.ts";

/** Polls of many replicas spread by themselves: each wait is so much shorter or longer. */
const JITTER = 0.1;

export interface PollOptions {
  /** Milliseconds between the end of one look and the next. */
  readonly everyMs: number;
  /** @default systemClock */
  readonly clock?: Clock;
  /** From 0 to 1. @default Math.random */
  readonly random?: () => number;
}

/** Does something again and again, never twice at once. What it throws is its own business. */
export class Poll {
  readonly #options: PollOptions;
  readonly #clock: Clock;
  readonly #look: () => Promise<unknown>;
  #timer: unknown;
  #stopped = false;

  constructor(look: () => Promise<unknown>, options: PollOptions) {
    this.#look = look;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  start(): void {
    const { everyMs, random = Math.random } = this.#options;
    if (this.#stopped || everyMs === 0) return;
    const wait = everyMs * (1 + JITTER * (2 * random() - 1));
    this.#timer = this.#clock.setTimeout(async () => {
      await this.#look().catch(() => {});
      this.start();
    }, wait);
    // It keeps no process alive.
    (this.#timer as Partial<NodeJS.Timeout>)?.unref?.();
  }

  stop(): void {
    this.#stopped = true;
    this.#clock.clearTimeout(this.#timer);
  }
}
