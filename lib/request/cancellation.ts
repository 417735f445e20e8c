import { LRUCache } from "lru-cache";
import type { Context, ServiceBroker } from "moleculer";
import { perBroker } from "../per-broker.ts";

/** The event that says a client hung up; its payload is a {@link CancelEvent}. */
export const CANCEL_EVENT = "inference.cancel";

export interface CancelEvent {
  /** The request's `cancelId`. Not its requestId: two clients may choose the same. */
  readonly cancelId: string;
}

/** On a broker's own bus: a call of its is now with another node than the one it was sent to. */
export const TAKEN_EVENT = "$request.taken";

export interface TakenEvent {
  /** Of the call's context. */
  readonly id: string;
  readonly nodeID: string;
}

/** What a request that can be cancelled bears in its context's meta. */
export interface CancelMeta {
  cancelId?: string;
}

/** Cancellations of requests that have not begun here; whoever sends more at once than this has some computed in vain. */
const MAX_EARLY = 1000;

/** A call to another node. */
interface Asked {
  readonly cancelId: string;
  /** Who was asked, or has taken the request over since. */
  nodeID: string;
  cancelled: boolean;
}

/** What this node does for whom, so that work whose client hung up can be given up before it starts. */
export class Cancellations {
  readonly #running = new Map<string, { readonly controller: AbortController; users: number }>();
  /** A request may wait in a queue when its cancellation comes. */
  readonly #early = new LRUCache<string, true>({ max: MAX_EARLY });
  /** By ID of the call's context. */
  readonly #asked = new Map<string, Asked>();

  /** Runs `work` with a signal that aborts when {@link abort} names its request. */
  async track<T>(cancelId: string | undefined, work: (signal?: AbortSignal) => Promise<T>): Promise<T> {
    if (cancelId === undefined) return work();
    const entry = this.#running.get(cancelId) ?? { controller: new AbortController(), users: 0 };
    entry.users += 1;
    this.#running.set(cancelId, entry);
    if (this.#early.delete(cancelId)) entry.controller.abort();
    try {
      return await work(entry.controller.signal);
    } finally {
      entry.users -= 1;
      if (entry.users === 0) this.#running.delete(cancelId);
    }
  }

  abort(cancelId: string): void {
    const running = this.#running.get(cancelId);
    if (running) running.controller.abort();
    else this.#early.set(cancelId, true);
  }

  /**
   * Remembers that `nodeID` was asked on behalf of `cancelId`, for as long as `work` takes.
   * @param id of the call's context
   */
  async asking<T>(id: string, cancelId: string, nodeID: string, work: () => Promise<T>): Promise<T> {
    this.#asked.set(id, { cancelId, nodeID, cancelled: false });
    try {
      return await work();
    } finally {
      this.#asked.delete(id);
    }
  }

  /** Nobody waits for these calls any more. @returns the nodes that hold them, as far as is known */
  giveUp(cancelId: string): ReadonlySet<string> {
    const asked = [...this.#asked.values()].filter((call) => call.cancelId === cancelId);
    for (const call of asked) call.cancelled = true;
    return new Set(asked.map(({ nodeID }) => nodeID));
  }

  /**
   * Another node has taken over the call `id`.
   * @returns the `cancelId` that this node must be told, if nobody waits any more
   */
  taken(id: string, nodeID: string): string | undefined {
    const call = this.#asked.get(id);
    if (!call) return undefined;
    call.nodeID = nodeID;
    return call.cancelled ? call.cancelId : undefined;
  }

  get size(): number {
    return this.#running.size;
  }
}

/** The broker's running requests; the middleware `Scopes` tracks them, services that hear {@link CANCEL_EVENT} abort. */
export const cancellationsOf = perBroker(() => new Cancellations());

/** The events of a service whose work a client gives up by hanging up. */
export const cancelEvents = {
  [CANCEL_EVENT](this: { readonly broker: ServiceBroker }, { params }: Context<CancelEvent>): void {
    cancellationsOf(this.broker).abort(params.cancelId);
  },
};

/**
 * Tells the services of this node, and the nodes that hold its calls, that nobody waits any more. Not all nodes: there
 * may be a thousand, and clients hang up often. What waits for any node to take it is cancelled when one does.
 */
export function cancel(broker: ServiceBroker, cancelId: string): void {
  void broker.broadcastLocal(CANCEL_EVENT, { cancelId } satisfies CancelEvent);
  for (const nodeID of cancellationsOf(broker).giveUp(cancelId)) {
    if (nodeID !== broker.nodeID) tell(broker, nodeID, { cancelId });
  }
}

/** From now on hears of the broker's calls that other nodes take over. */
export function followTaken(broker: ServiceBroker): void {
  broker.localBus.on(TAKEN_EVENT, ({ id, nodeID }: TakenEvent) => {
    const cancelId = cancellationsOf(broker).taken(id, nodeID);
    if (cancelId !== undefined) tell(broker, nodeID, { cancelId });
  });
}

/** Moleculer sends an event to one node by itself only while it picks the node. */
function tell(broker: ServiceBroker, nodeID: string, payload: CancelEvent): void {
  const ctx: Context = new broker.ContextFactory(broker);
  const target = { nodeID, endpoint: { id: nodeID }, eventName: CANCEL_EVENT, eventType: "broadcast" };
  Object.assign(ctx, target, { params: payload });
  // One that cannot be sent costs work that nobody waits for.
  broker.transit?.sendEvent(ctx).catch(() => {});
}
