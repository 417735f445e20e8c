import { ServingError } from "../errors.ts";
import { type Scope, within } from "./scope.ts";

export interface SemaphoreOptions {
  /** What the permits are for, as the client reads it: "The queue of <name> is full". */
  readonly name: string;
  /** What they do, for who comes too late: "decode". */
  readonly stage: string;
  /** Tasks at once, from 1. */
  readonly permits: number;
  /** Tasks that may wait; the next is refused. */
  readonly maxWaiting: number;
  /** What the weights of all running tasks may come to, unless one alone weighs more. @default Infinity */
  readonly capacity?: number;
}

/** What a task takes, as far as it is known before. */
export interface TaskSize {
  /** How long it will take, milliseconds. @default 0 */
  readonly expectedMs?: number;
  /** Of something that is scarcer than permits (memory). 0: the task is light. @default 0 */
  readonly weight?: number;
}

interface Waiting {
  readonly start: () => void;
  /** Its place in line: a time on its scope's clock. */
  readonly rank: number;
  readonly weight: number;
}

/**
 * A task stands in line as if it had come so many times later as it will take: whoever comes within that time and is
 * quick passes. Not for ever: after that time nobody passes any more.
 */
const PATIENCE = 4;

/**
 * At most `permits` tasks at once, at most `maxWaiting` in line; the quick pass the slow for a while.
 *
 * Free → the task starts at once. Taken → it waits; the end of its scope takes it out of the line. Line full → refused
 * at once. A permit is held until its task has really settled, even when the caller was let go earlier by its scope:
 * native work cannot be interrupted, and what still runs must still count.
 *
 * Tasks with a weight leave one permit to the light ones, if there is more than one, and start only while their
 * weights together stay within the capacity. None of them passes another that waits for that.
 */
export class Semaphore {
  readonly #name: string;
  readonly #stage: string;
  readonly #permits: number;
  readonly #maxWaiting: number;
  readonly #capacity: number;
  /** By rank, the first to start first. */
  readonly #line: Waiting[] = [];
  #active = 0;
  #heavy = 0;
  #weight = 0;

  constructor({ name, stage, permits, maxWaiting, capacity = Number.POSITIVE_INFINITY }: SemaphoreOptions) {
    this.#name = name;
    this.#stage = stage;
    this.#permits = permits;
    this.#maxWaiting = maxWaiting;
    this.#capacity = capacity;
  }

  /** Tasks that hold a permit. */
  get active(): number {
    return this.#active;
  }

  /** Tasks in line. */
  get waiting(): number {
    return this.#line.length;
  }

  /**
   * Settles as `task` does, unless its scope ends first; a task that was still in line then never starts.
   *
   * @throws {ServingError} QUEUE_FULL, DEADLINE_EXCEEDED, or the signal's reason
   */
  async run<T>(task: () => Promise<T>, scope: Scope, size: TaskSize = {}): Promise<T> {
    const { expectedMs = 0, weight = 0 } = size;
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const start = () => {
      // It is about to leave the line.
      if (scope.signal.aborted) return;
      this.#take(weight);
      task()
        .finally(() => this.#release(weight))
        .then(resolve, reject);
    };
    const waiting = { start, rank: scope.clock.now() + PATIENCE * expectedMs, weight };
    try {
      return await within(scope, this.#stage, () => {
        this.#join(waiting);
        return promise;
      });
    } finally {
      this.#leave(waiting);
    }
  }

  /** @throws {ServingError} QUEUE_FULL */
  #join(waiting: Waiting): void {
    this.#enter(waiting);
    this.#startNext();
    if (this.#line.length <= this.#maxWaiting || !this.#line.includes(waiting)) return;
    this.#leave(waiting);
    throw new ServingError("QUEUE_FULL", `The queue of ${this.#name} is full (${this.#maxWaiting} items)`, {
      limit: this.#maxWaiting,
    });
  }

  /** Does nothing if it has started. */
  #leave(waiting: Waiting): void {
    const at = this.#line.indexOf(waiting);
    if (at < 0) return;
    this.#line.splice(at, 1);
    // It may have been the one that others waited behind.
    this.#startNext();
  }

  #enter(waiting: Waiting): void {
    let at = this.#line.length;
    while (at > 0 && (this.#line[at - 1]?.rank ?? 0) > waiting.rank) at -= 1;
    this.#line.splice(at, 0, waiting);
  }

  #startNext(): void {
    for (let next = this.#eligible(); next >= 0; next = this.#eligible()) {
      const [waiting] = this.#line.splice(next, 1);
      waiting?.start();
    }
  }

  /** The place in line of the task to start now; -1: none. */
  #eligible(): number {
    if (this.#active >= this.#permits) return -1;
    const first = this.#line[0];
    if (!first) return -1;
    if (first.weight === 0 || this.#fits(first.weight)) return 0;
    return this.#line.findIndex(({ weight }) => weight === 0);
  }

  #fits(weight: number): boolean {
    if (this.#heavy === 0) return true;
    return this.#heavy < Math.max(1, this.#permits - 1) && this.#weight + weight <= this.#capacity;
  }

  #take(weight: number): void {
    this.#active += 1;
    this.#weight += weight;
    if (weight > 0) this.#heavy += 1;
  }

  #release(weight: number): void {
    this.#active -= 1;
    this.#weight -= weight;
    if (weight > 0) this.#heavy -= 1;
    this.#startNext();
  }
}
