/** The event that says a client hung up; its payload is a {@link CancelEvent}. */
export const CANCEL_EVENT = "inference.cancel";

export interface CancelEvent {
  readonly requestId: string;
}

/** What this node does for whom, so that work whose client hung up can be given up before it starts. */
export class Cancellations {
  readonly #running = new Map<string, { readonly controller: AbortController; users: number }>();

  /** Runs `work` with a signal that aborts when {@link abort} names this request. */
  async track<T>(requestId: string | null, work: (signal?: AbortSignal) => Promise<T>): Promise<T> {
    if (!requestId) return work();
    const entry = this.#running.get(requestId) ?? { controller: new AbortController(), users: 0 };
    entry.users += 1;
    this.#running.set(requestId, entry);
    try {
      return await work(entry.controller.signal);
    } finally {
      entry.users -= 1;
      if (entry.users === 0) this.#running.delete(requestId);
    }
  }

  abort(requestId: string): void {
    this.#running.get(requestId)?.controller.abort();
  }

  get size(): number {
    return this.#running.size;
  }
}
