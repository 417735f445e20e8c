import { Errors, type Packet, type Transit, Transporters } from "moleculer";
import { ServingError } from "../lib/errors.ts";
import { TAKEN_EVENT, type TakenEvent } from "../lib/request/cancellation.ts";
import { systemClock } from "../lib/request/clock.ts";
import { connectWith } from "./amqplib.ts";
import { isMismatch, messageOf } from "./connection.ts";
import { Messenger } from "./messenger.ts";
import { changeMoleculer, pardonSilence } from "./moleculer.ts";
import { type AmqpTransporterOptions, type Settings, settings } from "./options.ts";
import type { Clock, Connection } from "./ports.ts";
import type { PeerConnection } from "./requester.ts";
import { type Seat, Topology } from "./topology.ts";
import { Warnings } from "./warnings.ts";

type Payload = Record<string, unknown> & { id?: string; meta?: Record<string, unknown> };
type AnyPacket = Packet.Packet<Packet.PacketPayload>;
type PacketHandler = (cmd: string, packet: { payload: Payload }) => Promise<void>;

/** The parts, once the transporter belongs to a broker. */
interface Parts {
  readonly topology: Topology;
  readonly warnings: Warnings;
  readonly messenger: Messenger;
  /** Hands a packet to Moleculer. */
  readonly handle: PacketHandler;
}

/**
 * Moleculer over RabbitMQ with both: the registry's strategy picks the node, and no request is lost with it. Where what
 * is:
 *
 * - `topology.ts`: the path of a request, as a picture; every name and argument in RabbitMQ.
 * - `messenger.ts`: one process's part in it: the three below, wired together.
 * - `connection.ts`: the connection and its five states.
 * - `requester.ts`, `outbox.ts`: the asking half. Keeps a request until it is answered, sends it again when in doubt.
 * - `consumer.ts`, `delivery.ts`, `dead-letters.ts`: the serving half. Acknowledges a request after its answer.
 * - `trials.ts` on a node, `judge.ts` at the caller: how the request that kills processes is found.
 * - `message-age.ts`: deadlines travel as time left, since no two clocks agree.
 * - `moleculer.ts`: what is changed in Moleculer, and why.
 * - `ports.ts`: all that is wanted of RabbitMQ and of time; `amqplib.ts` is the real thing.
 * - this file: the adapter between these and Moleculer's packets.
 *
 * A request goes to the queue of the chosen node; after `stealAfterMs` there, any node with the action may take it.
 * Moleculer does not check that a request's target is the node that runs it, and the answer goes to the sender, so
 * nothing above notices. The price of all that is sent again is that a request may be computed twice; inference is
 * idempotent.
 */
export class AmqpTransporter extends Transporters.Base {
  readonly #settings: Settings;
  #parts: Parts | undefined;
  /** Whether this node hears of the others. */
  #hearsOthers = true;
  /** Whether Moleculer was told of a connection, so that the next one is a reconnect. */
  #introduced = false;

  /** @throws TypeError naming the option */
  constructor(options: AmqpTransporterOptions) {
    super({});
    this.#settings = settings(options);
    // Moleculer then keeps its own balancer on, whatever `disableBalancer` says.
    this.hasBuiltInBalancer = false;
  }

  /** Whether requests flow: connection, channel and subscriptions are there. */
  get alive(): boolean {
    return this.#its.messenger.isOpen;
  }

  /** Requests delivered to this node and not yet answered. */
  get inFlight(): number {
    return this.#its.messenger.consumer.inFlight;
  }

  /** Requests of this node that wait for an answer. */
  get pending(): number {
    return this.#its.messenger.requester.size;
  }

  get topology(): Topology {
    return this.#its.topology;
  }

  /** Names this node's own queues. */
  get seat(): Seat {
    return this.#its.messenger.seat;
  }

  /** For channels of one's own; undefined while there is none. */
  get connection(): Connection | undefined {
    return this.#its.messenger.connection.connection;
  }

  get #its(): Parts {
    if (!this.#parts) throw new Errors.BrokerOptionsError("The transporter belongs to no broker yet", {});
    return this.#parts;
  }

  /** Takes no more requests; resolves when each that was delivered is answered. Answers to our own still come. */
  drain(): Promise<void> {
    return this.#its.messenger.consumer.drain();
  }

  /**
   * Changes how many unanswered requests this node holds: a loaded node pulls less.
   * @throws TypeError unless an integer of at least 1
   */
  setPrefetch(prefetch: number): Promise<void> {
    return this.#its.messenger.consumer.setPrefetch(prefetch);
  }

  override init(
    transit: Transit,
    messageHandler: (cmd: string, message: string) => void,
    afterConnect: (wasReconnect: boolean) => void,
  ): void {
    super.init(transit, messageHandler, afterConnect);
    const { broker, nodeID } = this;
    const topology = new Topology(this.prefix);
    const warnings = new Warnings(this.logger, () => systemClock.now());
    const messenger = new Messenger({
      nodeID,
      instanceID: broker.instanceID,
      topology,
      settings: this.#settings,
      connect: connectWith(nodeID, this.#settings),
      warnings,
      random: Math.random,
      clock: systemClock,
      idleClock,
      newEpoch,
      hears: () => {
        this.#hearsOthers = this.#settings.hearsOthers();
        return this.#hearsOthers ? [...ASKED_OF_ALL, ...TOLD_TO_CALLERS] : ASKED_OF_ALL;
      },
      handle: async (body) => this.receive("REQ", body),
      failure: (sender, id, error) => this.#failure(sender, id, error),
      refuse: (id, error) => this.#refuse(id, error),
      taken: (id, nodeID) => broker.localBus.emit(TAKEN_EVENT, { id, nodeID } satisfies TakenEvent),
      packet: (cmd, content) => void this.#process(cmd, content),
      opened: () => this.#opened(),
      closed: () => {
        this.connected = false;
      },
      fatal: (message) => broker.fatal(message),
    });
    this.#parts = {
      topology,
      warnings,
      messenger,
      // Typed by Moleculer as taking a string; it takes the packet and returns a promise.
      handle: messageHandler as unknown as PacketHandler,
    };
    broker.options.requestTimeout ||= this.#settings.maxDeadlineMs;
    changeMoleculer(broker, transit, {
      forgotten: (id) => messenger.requester.forget(id),
      // While RabbitMQ is short of memory nobody's heartbeats get in.
      hears: () => messenger.connection.state === "open" && this.#hearsOthers,
      silent: (nodeID) => messenger.requester.peerSilent(nodeID),
    });
  }

  /** Resolves when connected; tries again until then, and by itself whenever the connection is lost later. */
  override async connect(): Promise<void> {
    await this.#its.messenger.connection.start();
    if (!this.alive) return;
    this.#introduced = true;
    await this.onConnected(false);
  }

  override async disconnect(): Promise<void> {
    const { connection, consumer } = this.#its.messenger;
    await connection.stop();
    consumer.reset();
    this.#introduced = false;
  }

  #opened(): void {
    pardonSilence(this.broker);
    if (this.connected) return;
    this.connected = true;
    // The first time `connect` does it, as Moleculer waits for that.
    if (this.#introduced) void this.onConnected(true);
  }

  async #process(cmd: string, content: Buffer): Promise<void> {
    try {
      await this.receive(cmd, content);
    } catch (error) {
      this.#its.warnings.about("A packet could not be processed", { cmd, reason: messageOf(error) });
    }
  }

  override async incomingMessage(cmd: string, message?: Buffer): Promise<void> {
    const { messenger, handle } = this.#its;
    const { consumer, requester } = messenger;
    const payload = message && this.#read(cmd, message);
    if (!payload) return;
    const sender = String(payload["sender"]);
    if (cmd === "REQ") consumer.annotate(payload);
    if (cmd === "INFO" && isPeerConnection(payload["connection"]))
      requester.peerConnected(sender, payload["connection"]);
    if (cmd === "DISCONNECT") requester.peerLeft(sender);
    // It was silent for a while, or its first words were lost: where is it?
    if (cmd === "HEARTBEAT" && sender !== this.nodeID && !requester.knows(sender))
      void this.transit.discoverer.discoverNode(sender);
    await handle(cmd, { payload });
  }

  #read(cmd: string, message: Buffer): Payload | undefined {
    const { warnings } = this.#its;
    let payload: unknown;
    try {
      payload = this.deserialize(cmd, message).payload;
    } catch {
      payload = undefined;
    }
    if (
      typeof payload !== "object" ||
      payload === null ||
      typeof (payload as Payload)["sender"] !== "string"
    ) {
      warnings.about("Unreadable packet: another serializer, or garbage", { cmd });
      return undefined;
    }
    const { ver, sender } = payload as Payload;
    if (ver !== this.broker.PROTOCOL_VERSION && !this.transit.opts.disableVersionCheck) {
      warnings.about("Packet of another protocol version", { cmd, sender, version: ver });
      return undefined;
    }
    return payload as Payload;
  }

  override async prepublish(packet: AnyPacket): Promise<void> {
    const payload = packet.payload as unknown as Payload;
    // Without a connection requests and answers wait; stock rejects the one and drops the other.
    if (packet.type === "REQ") return this.publish(packet);
    if (packet.type === "RES") {
      // The caller's context takes over the answer's meta, and is no suspect.
      delete payload.meta?.["$suspect"];
      return this.publish(packet);
    }
    if (packet.type === "INFO") {
      await this.#announce(packet.payload as Packet.PacketInfoPayload);
      payload["connection"] = this.#its.messenger.address;
    }
    return super.prepublish(packet);
  }

  /** Consumes what the packet promises, before the promise is made; nothing any more, if it is the last one. */
  async #announce({ services }: Packet.PacketInfoPayload): Promise<void> {
    const actions = services.flatMap((service) => Object.keys(service["actions"] ?? {}));
    const { consumer, connection } = this.#its.messenger;
    try {
      await consumer.serve(services.length > 0 ? actions : undefined);
    } catch (error) {
      const reason = messageOf(error);
      if (isMismatch(error)) this.broker.fatal(`RabbitMQ refused this node: ${reason}`);
      connection.fail(reason);
    }
  }

  override async send(_topic: string, data: Buffer, { packet }: { packet: AnyPacket }): Promise<void> {
    const { messenger } = this.#its;
    const { type, target } = packet;
    if (type === "REQ") return this.#sendRequest(packet as Packet.Packet<Packet.PacketRequestPayload>, data);
    // Who does not want to know the others does not ask them all.
    if (type === "DISCOVER" && !target && !this.#hearsOthers) return;
    if (type === "RES")
      return messenger.consumer.answer((packet.payload as unknown as Payload).id ?? "", data);
    messenger.tell(type, target ?? undefined, data);
  }

  #sendRequest({ target, payload }: Packet.Packet<Packet.PacketRequestPayload>, body: Buffer): void {
    const { id, action, timeout } = payload;
    if (payload.stream) {
      this.#refuse(id, new ServingError("BAD_REQUEST", `A stream cannot be sent to ${action} over RabbitMQ`));
      return;
    }
    const pinned =
      action.startsWith("$") || this.transit.pendingRequests.get(id)?.ctx.options.nodeID !== undefined;
    this.#its.messenger.requester.send({
      id,
      action,
      target: target ?? "",
      pinned,
      body,
      timeout: timeout ?? undefined,
    });
  }

  /** Fails a request quietly: what `publish` rejects with, Moleculer logs as an error, and this may be an overload. */
  #refuse(id: string, error: ServingError): void {
    this.transit.pendingRequests.get(id)?.reject(error);
    this.transit.removePendingRequest(id);
  }

  #failure(sender: string, id: string, error: ServingError): Buffer {
    const payload = { id, meta: {}, headers: {}, success: false, data: {} };
    const described = this.transit._createPayloadErrorField(error, payload);
    return this.serialize({
      type: "RES",
      target: sender,
      payload: { ...payload, error: described },
    } as never);
  }

  // Everything this node hears is set up with the connection, and its balancer is off.
  override makeSubscriptions(): Promise<void> {
    return Promise.resolve();
  }
  override async subscribe(): Promise<void> {}
  override async subscribeBalancedRequest(): Promise<void> {}
  override async subscribeBalancedEvent(): Promise<void> {}
}

/** Packets of Moleculer's for all nodes: questions that each answers, … */
const ASKED_OF_ALL = ["DISCOVER", "PING"];
/** … and what only those need to hear that call others. */
const TOLD_TO_CALLERS = ["INFO", "DISCONNECT", "HEARTBEAT"];

/** What waits for its time here keeps no process alive that has nothing else to do. */
const idleClock: Clock = {
  ...systemClock,
  setTimeout: (fn, ms) => (systemClock.setTimeout(fn, ms) as NodeJS.Timeout).unref(),
};

function newEpoch(): string {
  return Math.floor(Math.random() * 2 ** 48).toString(36);
}

function isPeerConnection(value: unknown): value is PeerConnection {
  const { instance, epoch } = (value ?? {}) as Partial<Record<keyof PeerConnection, unknown>>;
  return typeof instance === "string" && typeof epoch === "string";
}
