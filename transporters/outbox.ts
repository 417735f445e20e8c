import type { Channel } from "./ports.ts";
import type { Seat } from "./topology.ts";

/** A request until it is answered. */
export interface Outgoing {
  /** Moleculer's context ID. */
  readonly id: string;
  readonly action: string;
  /** Node ID of the node that was chosen. */
  readonly target: string;
  /** Whether no other node may answer it. */
  readonly pinned: boolean;
  readonly body: Buffer;
  /** Monotonic milliseconds. */
  readonly at: number;
  /** Milliseconds from `at`. */
  readonly timeout: number;
  /** Where it was last published: what was written to a channel that died may be lost. */
  sent?: Sent;
}

export interface Sent {
  readonly on: Channel;
  readonly at: number;
  /** The connection of the target that it was meant for, as far as it was known. */
  readonly seat: Seat;
}

/**
 * Requests made by this node and not yet answered, serialized, so that they can be sent again. Bounded by bytes:
 * this is where callers meet back-pressure while RabbitMQ is away or blocks the connection.
 */
export class Outbox {
  readonly #maxBytes: number;
  readonly #requests = new Map<string, Outgoing>();
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get size(): number {
    return this.#requests.size;
  }

  /** @returns false if it is full */
  add(request: Outgoing): boolean {
    if (this.#bytes + request.body.length > this.#maxBytes) return false;
    this.delete(request.id);
    this.#requests.set(request.id, request);
    this.#bytes += request.body.length;
    return true;
  }

  get(id: string): Outgoing | undefined {
    return this.#requests.get(id);
  }

  delete(id: string): void {
    this.#bytes -= this.#requests.get(id)?.body.length ?? 0;
    this.#requests.delete(id);
  }

  /** Oldest first. */
  [Symbol.iterator](): Iterator<Outgoing> {
    return this.#requests.values();
  }

  /** What was not written to `channel`, oldest first. */
  *unsentOn(channel: Channel): Generator<Outgoing> {
    for (const request of this.#requests.values()) if (request.sent?.on !== channel) yield request;
  }
}
