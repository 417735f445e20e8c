import { env } from "../env.ts";
import { wholeCores } from "../load/cgroup.ts";

/** A batch's right to be computed now. */
export interface Place {
  /** Nothing else was computed in this process when it was given. */
  readonly alone: boolean;
  /** Once. */
  release(): void;
}

/**
 * Who computes now, of all models of a process: so many batches at once share its cores, and no more, whatever
 * number of models there are. A place that becomes free goes to who has waited longest (as in Triton's rate limiter).
 */
export class Cores {
  /** Places in all. */
  readonly size: number;
  #taken = 0;
  /** In the order they came. */
  readonly #waiting = new Set<() => void>();

  /** @param size batches at once, from 1 */
  constructor(size: number) {
    this.size = size;
  }

  /**
   * @param wake called once, when a place is free and it is its turn, if there was none now. Whoever is woken takes
   *   the place at once or leaves it to the next.
   */
  take(wake: () => void): Place | undefined {
    if (this.#taken === this.size) {
      this.#waiting.add(wake);
      return undefined;
    }
    this.#waiting.delete(wake);
    const alone = this.#taken === 0;
    this.#taken++;
    return { alone, release: () => this.#release() };
  }

  #release(): void {
    this.#taken--;
    while (this.#taken < this.size) {
      const [wake] = this.#waiting;
      if (!wake) return;
      this.#waiting.delete(wake);
      wake();
    }
  }
}

/** Threads this process computes with: `ENGINE_THREADS`, else the whole cores of its CPU limit. */
export const THREADS = env.ENGINE_THREADS || wholeCores();

/** The one arbiter of this process. */
export const cores = new Cores(Math.min(env.ENGINE_INSTANCES, THREADS));
