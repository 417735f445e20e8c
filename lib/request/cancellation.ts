import type { ServiceBroker } from "moleculer";

/** The event that says a client hung up; its payload is a {@link CancelEvent}. */
export const CANCEL_EVENT = "inference.cancel";

export interface CancelEvent {
  /** The request's `cancelId`. Not its requestId: two clients may choose the same. */
  readonly cancelId: string;
}

/** What a request that can be cancelled bears in its context's meta. */
export interface CancelMeta {
  cancelId?: string;
}

/** What this node does for whom, so that work whose client hung up can be given up before it starts. */
export class Cancellations {
  readonly #running = new Map<string, { readonly controller: AbortController; users: number }>();

  /** Runs `work` with a signal that aborts when {@link abort} names its request. */
  async track<T>(cancelId: string | undefined, work: (signal?: AbortSignal) => Promise<T>): Promise<T> {
    if (cancelId === undefined) return work();
    const entry = this.#running.get(cancelId) ?? { controller: new AbortController(), users: 0 };
    entry.users += 1;
    this.#running.set(cancelId, entry);
    try {
      return await work(entry.controller.signal);
    } finally {
      entry.users -= 1;
      if (entry.users === 0) this.#running.delete(cancelId);
    }
  }

  abort(cancelId: string): void {
    this.#running.get(cancelId)?.controller.abort();
  }

  get size(): number {
    return this.#running.size;
  }
}

const cancellations = new WeakMap<ServiceBroker, Cancellations>();

/** The broker's running requests; the middleware `Scopes` tracks them, services that hear {@link CANCEL_EVENT} abort. */
export function cancellationsOf(broker: ServiceBroker): Cancellations {
  let own = cancellations.get(broker);
  if (!own) {
    own = new Cancellations();
    cancellations.set(broker, own);
  }
  return own;
}
