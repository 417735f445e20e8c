import type { Context, ServiceBroker } from "moleculer";

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
  readonly #asked = new Map<string, readonly string[]>();

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

  /** Remembers that `nodeID` was asked on behalf of `cancelId`, for as long as `work` takes. */
  async asking<T>(cancelId: string, nodeID: string, work: () => Promise<T>): Promise<T> {
    const nodes = this.#asked.get(cancelId) ?? [];
    this.#asked.set(cancelId, [...nodes, nodeID]);
    try {
      return await work();
    } finally {
      const left = [...(this.#asked.get(cancelId) ?? [])];
      left.splice(left.indexOf(nodeID), 1);
      if (left.length > 0) this.#asked.set(cancelId, left);
      else this.#asked.delete(cancelId);
    }
  }

  /** Nodes that were asked on behalf of `cancelId` and have not answered. */
  askedFor(cancelId: string): ReadonlySet<string> {
    return new Set(this.#asked.get(cancelId));
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

/**
 * Tells the services of this node, and the nodes that were asked, that nobody waits any more. Not all nodes: there may
 * be a thousand, and clients hang up often. A request that another node has taken over runs to its end.
 */
export function cancel(broker: ServiceBroker, cancelId: string): void {
  const payload: CancelEvent = { cancelId };
  void broker.broadcastLocal(CANCEL_EVENT, payload);
  for (const nodeID of cancellationsOf(broker).askedFor(cancelId)) {
    if (nodeID !== broker.nodeID) tell(broker, nodeID, payload);
  }
}

/** Moleculer sends an event to one node by itself only while it picks the node. */
function tell(broker: ServiceBroker, nodeID: string, payload: CancelEvent): void {
  const ctx: Context = new broker.ContextFactory(broker);
  const target = { nodeID, endpoint: { id: nodeID }, eventName: CANCEL_EVENT, eventType: "broadcast" };
  Object.assign(ctx, target, { params: payload });
  // One that cannot be sent costs work that nobody waits for.
  broker.transit?.sendEvent(ctx).catch(() => {});
}
