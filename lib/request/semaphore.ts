import { ServingError } from "../errors.ts";

/**
 * At most `permits` tasks at once, at most `maxWaiting` in line, first come first served.
 *
 * Free → the task starts at once. Taken → it waits; its signal takes it out of the line. Line full → refused at
 * once. A permit is held until its task has really settled, even when the caller was let go earlier by the signal:
 * native work cannot be interrupted, and what still runs must still count.
 */
export class Semaphore {
  readonly #name: string;
  readonly #permits: number;
  readonly #maxWaiting: number;
  /** Starts the waiting task. A set, so that leaving the line costs the same wherever one stands. */
  readonly #line = new Set<() => void>();
  #active = 0;

  /** @param name what the permits are for, as the client reads it: "The queue of <name> is full" */
  constructor(name: string, permits: number, maxWaiting: number) {
    this.#name = name;
    this.#permits = permits;
    this.#maxWaiting = maxWaiting;
  }

  /** Tasks that hold a permit. */
  get active(): number {
    return this.#active;
  }

  /** Tasks in line. */
  get waiting(): number {
    return this.#line.size;
  }

  /**
   * Settles as `task` does, or rejects with the signal's reason as soon as that aborts; a task that was still in
   * line then never starts.
   *
   * @throws {ServingError} QUEUE_FULL
   */
  run<T>(task: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const start = () => {
        this.#active += 1;
        const leave = () => {
          signal?.removeEventListener("abort", abort);
          this.#release();
        };
        // `then` and not `finally`: the outcome goes to the caller, and nowhere else.
        task().then(
          (value) => {
            leave();
            resolve(value);
          },
          (error) => {
            leave();
            reject(error);
          },
        );
      };
      const abort = () => {
        this.#line.delete(start);
        reject(signal?.reason);
      };
      if (this.#active < this.#permits) {
        start();
      } else if (this.#line.size < this.#maxWaiting) {
        this.#line.add(start);
      } else {
        return reject(
          new ServingError("QUEUE_FULL", `The queue of ${this.#name} is full (${this.#maxWaiting} items)`, {
            limit: this.#maxWaiting,
          }),
        );
      }
      signal?.addEventListener("abort", abort, { once: true });
    });
  }

  #release(): void {
    this.#active -= 1;
    const [next] = this.#line;
    if (!next) return;
    this.#line.delete(next);
    next();
  }
}
