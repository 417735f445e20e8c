import type { Channel } from "amqplib";

/** A request until it is answered. */
export interface Outgoing {
  readonly id: string;
  readonly action: string;
  readonly exchange: string;
  readonly routingKey: string;
  readonly body: Buffer;
  /** Monotonic milliseconds. */
  readonly at: number;
  /** Milliseconds from `at`. */
  readonly timeout: number;
  /** The channel it was last published on: what was written to a dead one may be lost. */
  sentOn?: Channel;
  /** Copies of it that RabbitMQ may still have from connections that are gone. */
  formerCopies?: number;
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

  /** What was not written to `channel`, oldest first. */
  *unsentOn(channel: Channel): Generator<Outgoing> {
    for (const request of this.#requests.values()) if (request.sentOn !== channel) yield request;
  }
}
