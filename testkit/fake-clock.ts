import type { Clock } from "../lib/request/clock.ts";

interface Timer {
  readonly at: number;
  readonly fn: () => void;
}

/** A clock that stands still until it is moved. Timers of the same moment fire in the order they were set. */
export class FakeClock implements Clock {
  #now = 0;
  readonly #timers = new Set<Timer>();

  /** Timers that are set and have not fired. */
  get pending(): number {
    return this.#timers.size;
  }

  now(): number {
    return this.#now;
  }

  setTimeout(fn: () => void, ms: number): unknown {
    const timer = { at: this.#now + Math.max(0, ms), fn };
    this.#timers.add(timer);
    return timer;
  }

  clearTimeout(handle: unknown): void {
    this.#timers.delete(handle as Timer);
  }

  /** Moves time on to the next timer, fires it and lets all that follows happen; false if none was set until `end`. */
  async step(end = Number.POSITIVE_INFINITY): Promise<boolean> {
    await settle();
    const timer = this.#next(end);
    if (!timer) return false;
    this.#timers.delete(timer);
    this.#now = Math.max(this.#now, timer.at);
    timer.fn();
    await settle();
    return true;
  }

  /** Moves time on by `ms`, stopping at each timer on the way. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    while (await this.step(end));
    this.#now = Math.max(this.#now, end);
  }

  /** Moves time on while no timer fires, as if something blocked the event loop. */
  block(ms: number): void {
    this.#now += ms;
  }

  /** Whether a timer is due that has not fired. */
  get overdue(): boolean {
    return this.#next(this.#now) !== undefined;
  }

  #next(end: number): Timer | undefined {
    let next: Timer | undefined;
    for (const timer of this.#timers) if (timer.at <= end && (!next || timer.at < next.at)) next = timer;
    return next;
  }
}

/** Lets every promise that can settle do so. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
