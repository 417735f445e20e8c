import { ServingError } from "../lib/errors.ts";
import { Judge } from "./judge.ts";
import type { Settings } from "./options.ts";
import { Outbox, type Outgoing } from "./outbox.ts";
import type { Channel, Clock, Message } from "./ports.ts";
import type { Seat, Topology } from "./topology.ts";

/**
 * What a dead process held is with others by then, unless its member of RabbitMQ died with it. Sent again at once it
 * would be twice with them, and if it is poison, kill twice.
 */
const HANDED_OVER_MS = 10_000;

/** What the requester needs from around it. */
export interface RequesterHost {
  readonly nodeID: string;
  /** Of this process: a restarted one with the same node ID has another. */
  readonly instanceID: string;
  readonly clock: Clock;
  readonly topology: Topology;
  readonly settings: Pick<
    Settings,
    "stealAfterMs" | "maxDeadlineMs" | "maxPendingBytes" | "maxMessageBytes" | "observe"
  >;
  /** Ends a request whose caller still waits. */
  readonly refuse: (id: string, error: ServingError) => void;
}

/** What a node tells of itself and its connection. */
export interface PeerConnection {
  /** Of its process. */
  readonly instance: string;
  readonly epoch: string;
}

/**
 * The asking half of the transporter: keeps each request of this node until it is answered, and sends it again
 * whenever it may be lost. That is the whole of "no request is lost", at least once, end to end:
 *
 * - Our own connection was lost: all that was written to it.
 * - The chosen node has a new connection: what was put into the queue of the old one. If only the connection broke,
 *   RabbitMQ hands that queue over, and the work may be done twice; if the member of RabbitMQ died that both lived on,
 *   nobody else has it. If the node was started anew, that is left some time.
 * - The chosen node fell silent: what it was sent. A process that is cut off holds its requests until RabbitMQ notices.
 * - RabbitMQ has no queue for it: a moment later.
 *
 * There are no publisher confirms: they tell that RabbitMQ has a message, for a round trip each; what a caller needs
 * is the answer, and it waits for that anyway.
 */
export class Requester {
  readonly #host: RequesterHost;
  readonly #outbox: Outbox;
  readonly #judge: Judge;
  readonly #peers = new Map<string, PeerConnection>();
  #channel: Channel | undefined;
  /** Of the largest message that RabbitMQ takes, as far as it is known. */
  #maxMessageBytes: number;
  /** RabbitMQ does not read as fast as we write: the rest waits where it is, instead of once more in a socket. */
  #congested = false;

  constructor(host: RequesterHost) {
    this.#host = host;
    this.#outbox = new Outbox(host.settings.maxPendingBytes);
    this.#maxMessageBytes = host.settings.maxMessageBytes;
    this.#judge = new Judge({
      nodeID: host.nodeID,
      clock: host.clock,
      topology: host.topology,
      waitsFor: (id) => this.#outbox.get(id) !== undefined,
      convict: (id) => this.#convict(id),
    });
  }

  /** Requests that wait for an answer. */
  get size(): number {
    return this.#outbox.size;
  }

  /** Requests among them that a process was allowed to try alone. */
  get tried(): number {
    return this.#judge.size;
  }

  /** Takes a request over. It ends by `forget`, or by the host's `refuse`. */
  send(request: Omit<Outgoing, "at" | "timeout" | "sent"> & { readonly timeout: number | undefined }): void {
    const { clock, settings, refuse } = this.#host;
    const timeout = request.timeout && request.timeout > 0 ? request.timeout : Number.POSITIVE_INFINITY;
    const outgoing = { ...request, at: clock.now(), timeout: Math.min(timeout, settings.maxDeadlineMs) };
    if (request.body.length > this.#maxMessageBytes) this.#tooLarge(outgoing);
    else if (!this.#outbox.add(outgoing)) {
      const text = "Too many requests wait for an answer";
      refuse(request.id, new ServingError("QUEUE_FULL", text, { action: request.action }));
    } else if (!this.#congested) this.#publish(outgoing);
  }

  /** It was answered, or nobody waits for it any more. */
  forget(id: string): void {
    this.#judge.forget(id);
    this.#outbox.delete(id);
  }

  /** Messages may be published. */
  resume(channel: Channel): void {
    this.#channel = channel;
    this.#judge.resume(channel);
    this.drained();
  }

  /** Messages had better wait until `resume`. */
  pause(): void {
    this.#channel = undefined;
  }

  /**
   * The connection is gone. If a request was too large for RabbitMQ, which says how large it may be, it would be again.
   * @param reason what RabbitMQ said
   */
  lost(reason: string): void {
    this.pause();
    const limit = /message size \d+ (?:is )?larger than (?:configured )?max size (\d+)/.exec(reason)?.[1];
    if (limit === undefined) return;
    this.#maxMessageBytes = Math.min(this.#maxMessageBytes, Number(limit));
    for (const request of [...this.#outbox]) {
      if (request.body.length > this.#maxMessageBytes) this.#tooLarge(request);
    }
  }

  #tooLarge({ id, action, body }: Pick<Outgoing, "id" | "action" | "body">): void {
    const limit = this.#maxMessageBytes;
    const text = `A request of ${body.length} bytes is more than the ${limit} that RabbitMQ takes`;
    this.#host.refuse(id, new ServingError("PAYLOAD_TOO_LARGE", text, { action, limit }));
  }

  /** What was written has gone out. */
  drained(): void {
    this.#congested = false;
    this.#resend(this.#channel ? this.#outbox.unsentOn(this.#channel) : []);
  }

  /** No queue for it: RabbitMQ lost its data, or the last node left for good. One may come back before the deadline. */
  returned(message: Message): void {
    if (message.properties.type === "PROBE") this.#judge.returned(message);
    else this.#publishLater(String(message.properties.messageId));
  }

  #publishLater(id: string): void {
    const { clock, settings } = this.#host;
    const channel = this.#channel;
    clock.setTimeout(() => {
      const request = this.#outbox.get(id);
      if (request && channel === this.#channel) this.#publish(request);
    }, settings.stealAfterMs);
  }

  /** A node told its connection: where to put requests for it from now on. */
  peerConnected(nodeID: string, { instance, epoch }: PeerConnection): void {
    this.#judge.peerIs(nodeID, instance);
    const known = this.#peers.get(nodeID);
    if (known?.epoch === epoch) return;
    this.#peers.set(nodeID, { instance, epoch });
    if (!known) return;
    if (known.instance === instance) this.#resendOf(nodeID, ({ seat }) => seat.epoch === known.epoch);
    else this.#resendLater(nodeID, known);
  }

  /** A node left in good order: what it leaves behind is handed over. */
  peerLeft(nodeID: string): void {
    const known = this.#peers.get(nodeID);
    if (known) this.#resendLater(nodeID, known);
    this.#judge.peerLeft(nodeID);
    this.#peers.delete(nodeID);
  }

  /** Whether a node has told its connection, and has not been silent since. */
  knows(nodeID: string): boolean {
    return this.#peers.has(nodeID);
  }

  /** A node has not been heard of for too long: until it tells its connection again, requests for it go to others. */
  peerSilent(nodeID: string): void {
    if (!this.#peers.delete(nodeID)) return;
    this.#resendOf(nodeID, () => true);
  }

  /** A message about one of our requests from a node that tries it: see `Judge`. */
  heard(message: Message): void {
    if (message.properties.type === "TRIAL") this.#judge.asked(message);
    else this.#judge.heard(message);
  }

  #convict(id: string): void {
    const action = this.#outbox.get(id)?.action ?? "unknown";
    const text = `A process that did nothing but this request of ${action} died`;
    this.#host.refuse(id, new ServingError("POISON_REQUEST", text, { action }));
  }

  #resendLater(nodeID: string, { epoch }: PeerConnection): void {
    this.#host.clock.setTimeout(
      () => this.#resendOf(nodeID, ({ seat }) => seat.epoch === epoch),
      HANDED_OVER_MS,
    );
  }

  #resendOf(nodeID: string, isLost: (sent: NonNullable<Outgoing["sent"]>) => boolean): void {
    this.#resend(
      Array.from(this.#outbox).filter(
        // One that was tried alone is on its way, and a second copy of a poison costs more processes.
        ({ id, target, sent }) => target === nodeID && sent && isLost(sent) && !this.#judge.isTried(id),
      ),
    );
  }

  #resend(requests: Iterable<Outgoing>): void {
    for (const request of requests) {
      // Where it cannot be written now, it is when there is a channel with room.
      if (this.#channel && !this.#congested) this.#publish(request);
      else delete request.sent;
    }
  }

  #publish(request: Outgoing): void {
    const { clock, topology, settings, nodeID, instanceID } = this.#host;
    const channel = this.#channel;
    const now = clock.now();
    const { id, action, target, pinned, body, at, timeout } = request;
    const left = at + timeout - now;
    if (!channel || left <= 0) return;
    if (request.sent) settings.observe("resent", action);
    const seat: Seat = { nodeID: target, epoch: this.#peers.get(target)?.epoch ?? "" };
    request.sent = { on: channel, at: now, seat };
    this.#congested = !channel.publish(
      pinned ? topology.nodeExchange : topology.targetedExchange,
      pinned ? target : topology.key(seat, action),
      body,
      {
        messageId: id,
        appId: nodeID,
        type: "REQ",
        expiration: Math.ceil(left),
        // Not from its beginning: whoever takes it believes that it was not longer on its way than queues keep it.
        headers: { action, by: instanceID, at: now, timeout: left, attempts: 0 },
        mandatory: true,
      },
    );
  }
}
