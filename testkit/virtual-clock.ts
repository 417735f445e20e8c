import type { Clock } from "../lib/request/clock.ts";

interface Timer {
  readonly at: number;
  /** Order among timers of one moment. */
  readonly order: number;
  fn: (() => void) | undefined;
}

/**
 * Time that passes only when it is moved, with any number of timers: a binary heap, where the tests' fake clock looks
 * through all of them. Milliseconds.
 */
export class VirtualClock implements Clock {
  #now = 0;
  #orders = 0;
  readonly #heap: Timer[] = [];

  now(): number {
    return this.#now;
  }

  setTimeout(fn: () => void, ms: number): unknown {
    const timer: Timer = { at: this.#now + Math.max(0, ms), order: this.#orders++, fn };
    this.#push(timer);
    return timer;
  }

  /** Leaves the timer where it is, with nothing to do. */
  clearTimeout(handle: unknown): void {
    if (handle) (handle as Timer).fn = undefined;
  }

  /** Moves time on to `end`, firing every timer until then in order; each lets all that follows from it happen. */
  async runUntil(end: number): Promise<void> {
    for (let timer = this.#heap[0]; timer && timer.at <= end; timer = this.#heap[0]) {
      this.#pop();
      const { fn } = timer;
      if (!fn) continue;
      this.#now = Math.max(this.#now, timer.at);
      fn();
      await settled();
    }
    this.#now = Math.max(this.#now, end);
  }

  #push(timer: Timer): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(timer);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(timer, heap[parent] as Timer)) break;
      heap[at] = heap[parent] as Timer;
      at = parent;
    }
    heap[at] = timer;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (!last || heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1] as Timer, heap[child] as Timer)) child++;
      if (!isBefore(heap[child] as Timer, last)) break;
      heap[at] = heap[child] as Timer;
      at = child;
    }
    heap[at] = last;
  }
}

function isBefore(a: Timer, b: Timer): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

/** Every promise that can settle has done so. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
