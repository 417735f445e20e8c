import { CancelledError, errorCode } from "../errors.ts";
import { type Scope, whyOver, within } from "../request/scope.ts";

interface Flight<T> {
  readonly landing: Promise<T>;
  readonly abort: AbortController;
  /** Callers that still wait for it. */
  passengers: number;
}

/** What became of a flight because of the one that began it, and says nothing of the others. */
const PERSONAL: ReadonlySet<string> = new Set(["CANCELLED", "DEADLINE_EXCEEDED"]);

/**
 * Lets callers that want the same at the same time share one computation. It belongs to none of them: it goes on when
 * the one that began it gives up, and ends when all have. Each caller heeds its own cancellation and deadline. A
 * computation that ended with the deadline of whoever began it is begun again, once, by one of those with time left.
 */
export class Flights<T> {
  readonly #flights = new Map<string, Flight<T>>();

  /** Computations under way. */
  get size(): number {
    return this.#flights.size;
  }

  /**
   * @param compute is given a scope of its own: it ends when nobody waits any more
   * @returns `shared`: another caller began it
   * @throws what `compute` does, also for those who only shared it; DeadlineExceededError or the reason of `scope`
   */
  async run(
    key: string,
    scope: Scope,
    compute: (scope: Scope) => Promise<T>,
  ): Promise<{ readonly value: T; readonly shared: boolean }> {
    for (;;) {
      const known = this.#flights.get(key);
      const flight = known ?? this.#begin(key, scope, compute);
      try {
        const value = await this.#board(key, flight, scope);
        return { value, shared: known !== undefined };
      } catch (error) {
        if (!known || whyOver(scope, "queue") || !PERSONAL.has(errorCode(error))) throw error;
      }
    }
  }

  #begin(key: string, scope: Scope, compute: (scope: Scope) => Promise<T>): Flight<T> {
    const abort = new AbortController();
    // Begun in a microtask, so that whatever it does first finds the flight in place.
    const landing = Promise.resolve().then(() => compute({ ...scope, signal: abort.signal }));
    const flight = { landing, abort, passengers: 0 };
    this.#flights.set(key, flight);
    const land = () => this.#forget(key, flight);
    landing.then(land, land);
    return flight;
  }

  async #board(key: string, flight: Flight<T>, scope: Scope): Promise<T> {
    flight.passengers += 1;
    try {
      return await within(scope, "queue", () => flight.landing);
    } finally {
      flight.passengers -= 1;
      // Who comes now must not join what is being given up.
      if (flight.passengers === 0 && this.#forget(key, flight)) flight.abort.abort(new CancelledError());
    }
  }

  #forget(key: string, flight: Flight<T>): boolean {
    return this.#flights.get(key) === flight && this.#flights.delete(key);
  }
}
