import type { ServingError } from "../lib/errors.ts";
import { LastingConnection } from "./connection.ts";
import { RequestConsumer } from "./consumer.ts";
import { openInbox } from "./inbox.ts";
import { MessageAge } from "./message-age.ts";
import type { Settings } from "./options.ts";
import type { Channel, Clock, Connect, Message, Random } from "./ports.ts";
import { type PeerConnection, Requester } from "./requester.ts";
import type { Seat, Topology } from "./topology.ts";
import type { Warnings } from "./warnings.ts";

/** What the messenger needs from around it: Moleculer, or a simulation of it. */
export interface MessengerHost {
  readonly nodeID: string;
  /** Of this process: a restarted one with the same node ID has another. */
  readonly instanceID: string;
  readonly topology: Topology;
  readonly settings: Settings;
  readonly connect: Connect;
  readonly warnings: Warnings;
  readonly random: Random;
  /** What the connection waits by. */
  readonly clock: Clock;
  /** The same time, for what is worth no process's life. @default clock */
  readonly idleClock?: Clock;
  /** Unlike that of any other connection of any process with this node ID. */
  readonly newEpoch: () => string;
  /** Kinds of packets for all nodes that this one wants; asked at each connection. */
  readonly hears: () => readonly string[];
  /** Hands a request's body over; resolves when its answer was given to `consumer.answer`. */
  readonly handle: (body: Buffer) => Promise<void>;
  /** The serialized answer that tells `sender` of the failure of its request `id`. */
  readonly failure: (sender: string, id: string, error: ServingError) => Buffer;
  /** Ends a request of this node whose caller still waits. */
  readonly refuse: (id: string, error: ServingError) => void;
  /** Another node than the chosen one runs a request of this one. */
  readonly taken: (id: string, nodeID: string) => void;
  /** Takes every packet that is no request and not about one. */
  readonly packet: (type: string, content: Buffer) => void;
  /** Packets flow, for the first time or again. */
  readonly opened: () => void;
  readonly closed: () => void;
  /** Calls for the end of the process: RabbitMQ will never take this one as it is. */
  readonly fatal: (message: string) => void;
}

/**
 * One process's part in the topology: its connection, and over it the asking half, the serving half and the inbox,
 * wired together. Knows packets by their kind only; what is in them is the host's.
 */
export class Messenger {
  readonly connection: LastingConnection;
  readonly requester: Requester;
  readonly consumer: RequestConsumer;
  readonly #host: MessengerHost;
  #seat: Seat;

  constructor(host: MessengerHost) {
    const { nodeID, instanceID, topology, settings, clock, idleClock = clock, warnings } = host;
    const { connect, random, refuse, handle, failure, fatal } = host;
    this.#host = host;
    this.#seat = { nodeID, epoch: "" };
    const common = { nodeID, instanceID, topology, settings, clock: idleClock };
    this.requester = new Requester({ ...common, refuse });
    this.consumer = new RequestConsumer({
      ...common,
      warnings,
      age: new MessageAge(() => clock.now()),
      handle,
      failure,
      fail: (reason) => this.connection.fail(reason),
    });
    this.connection = new LastingConnection({
      urls: settings.urls,
      connect,
      clock,
      random,
      warnings,
      fatal,
      user: {
        prepare: (channel) => this.#prepare(channel),
        opened: (channel) => {
          this.requester.resume(channel);
          host.opened();
        },
        blocked: (reason) => {
          warnings.alarm("RabbitMQ blocks this connection, requests wait", { reason });
          this.requester.pause();
        },
        closed: (reason) => {
          this.requester.lost(reason);
          this.consumer.detach();
          host.closed();
        },
        returned: (message) => {
          if (message.properties.type === "RES") this.consumer.returned(message);
          else this.requester.returned(message);
        },
        drained: () => this.requester.drained(),
      },
    });
  }

  /** Of the current connection, or of the last one: names this node's own queues. */
  get seat(): Seat {
    return this.#seat;
  }

  /** What others put requests for this node by. */
  get address(): PeerConnection {
    return { instance: this.#host.instanceID, epoch: this.#seat.epoch };
  }

  /** Whether packets and requests flow: connection, channel and subscriptions are there. */
  get isOpen(): boolean {
    return this.connection.channel !== undefined;
  }

  /** Sends a packet to one node, or to all that hear this kind. Without a connection it is lost. */
  tell(type: string, target: string | undefined, content: Buffer): void {
    const { nodeExchange, allExchange } = this.#host.topology;
    const { channel } = this.connection;
    if (target) channel?.publish(nodeExchange, target, content, { type });
    else channel?.publish(allExchange, type, content, { type });
  }

  async #prepare(channel: Channel): Promise<void> {
    const { nodeID, instanceID, topology, newEpoch, hears } = this.#host;
    this.#seat = { nodeID, epoch: newEpoch() };
    await openInbox(channel, topology, this.#seat, {
      instanceID,
      hears: hears(),
      receive: (message) => this.#receive(message),
    });
    await this.consumer.attach(channel, this.#seat);
  }

  #receive(message: Message | null): void {
    const type = message?.properties.type ?? "unknown";
    if (message === null) this.connection.fail("RabbitMQ cancelled the consumer of the inbox");
    else if (type === "REQ") this.consumer.receivePinned(message);
    else if (type === "TRIAL" || type === "HERE") this.requester.heard(message);
    else if (type === "TAKEN") this.#taken(message);
    else if (type === "RULING" || type === "PROBE") this.consumer.heard(message);
    else this.#host.packet(type, message.content);
  }
  #taken({ properties: { messageId: id, appId: nodeID } }: Message): void {
    if (id !== undefined && nodeID !== undefined) this.#host.taken(id, nodeID);
  }
}
