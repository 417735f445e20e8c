import { setTimeout as delay } from "node:timers/promises";
import type { Channel, ChannelModel, ConsumeMessage, Message, Options } from "amqplib";
import { Errors, type Packet, type Transit, Transporters } from "moleculer";
import { DeadlineExceededError, errorCode, ServingError } from "../lib/errors.ts";
import { Complaints } from "./complaints.ts";
import { isMismatch, isRefusal, openConnection, retryDelay } from "./connection.ts";
import { MessageAge } from "./message-age.ts";
import { type AmqpTransporterOptions, redact, type Settings, settings } from "./options.ts";
import { Outbox, type Outgoing } from "./outbox.ts";
import { RequestConsumer, startConsumer } from "./request-consumer.ts";
import { TOPOLOGY_VERSION, Topology } from "./topology.ts";

/** Milliseconds a graceful close may take before the connection is left to itself. */
const CLOSE_TIMEOUT_MS = 2000;

type Payload = Record<string, unknown> & { id?: string; meta?: Record<string, unknown> };
type AnyPacket = Packet.Packet<Packet.PacketPayload>;
type RequestPacket = Packet.Packet<Packet.PacketRequestPayload>;
type PacketHandler = (cmd: string, packet: { payload: Payload }) => Promise<void>;

/**
 * Moleculer over RabbitMQ with both: the registry's strategy picks the node, and no request is lost with it.
 *
 * **The path** is drawn in `topology.ts`. A request goes to the queue of the chosen node; after `stealAfterMs` there,
 * any node with the action may take it. Moleculer does not check that a request's target is the node that runs it, and
 * the answer goes to the sender, so nothing above notices.
 *
 * **Why no publisher confirms and no persistence.** A confirm tells that RabbitMQ has a message, for a round trip each;
 * what a caller needs is the answer, and it waits for that anyway. So the loop is closed end to end, at least once:
 * the caller keeps a request until it is answered and sends all open ones again whenever its connection was lost; a
 * node acknowledges a request after it wrote the answer on the same channel, so an answer that was not sent leaves its
 * request to be delivered again; answers are acknowledged too, for the connection that died before we noticed. The
 * price is that a request may be computed twice. Inference is idempotent, and a node never runs one request twice at
 * the same time. Not covered: one member of a RabbitMQ cluster that loses a queue while the caller's connection to
 * another member stays up; that request ends at its deadline.
 *
 * **Deadlines** travel as time left, never as a time of day. RabbitMQ drops what expires in a queue; a node drops what
 * `MessageAge` says is too old, since a stolen message has lost its expiry.
 *
 * **A lost node** does not fail the requests sent to it (stock: RequestRejectedError), nor does our own outage mark
 * all other nodes as lost: only the deadline ends a request.
 *
 * **Connection**: a channel that dies takes its connection along, so there is no half-dead state and `alive` is the
 * whole truth. The first connection must not be refused and no queue may exist with other arguments: these end the
 * process, everything else is tried again until `disconnect`.
 */
export class AmqpTransporter extends Transporters.AMQP {
  declare connection: ChannelModel | null;
  declare channel: Channel | null;
  readonly #settings: Settings;
  readonly #age = new MessageAge();
  readonly #outbox: Outbox;
  #topology: Topology | undefined;
  #consumer: RequestConsumer | undefined;
  #complaints: Complaints | undefined;
  #handle: PacketHandler | undefined;
  #topics: Record<string, unknown>[] = [];
  /** Answers made while there was no channel. No more than this node had requests, as it gets none meanwhile. */
  #answers: { topic: string; data: Buffer; headers: { by: string; at: number } }[] = [];
  /** Whether `connect` is at work. */
  #connecting = false;
  /** Whether requests may be published. */
  #open = false;
  #everOpen = false;
  #blocked = false;
  #stopping = false;

  /** @throws TypeError naming the option */
  constructor(options: AmqpTransporterOptions) {
    const own = settings(options);
    super({ url: [...own.urls] });
    this.#settings = own;
    this.#outbox = new Outbox(own.maxPendingBytes);
    // Moleculer then keeps its own balancer on, whatever `disableBalancer` says.
    this.hasBuiltInBalancer = false;
  }

  /** Whether requests flow: connection, channel and subscriptions are there. */
  get alive(): boolean {
    return this.#open;
  }

  /** Requests delivered to this node and not yet answered. */
  get inFlight(): number {
    return this.#requests.inFlight;
  }

  /** Requests of this node that wait for an answer. */
  get pending(): number {
    return this.#outbox.size;
  }

  /** Names and arguments of everything in RabbitMQ. */
  get topology(): Topology {
    return initialised(this.#topology);
  }

  get #requests(): RequestConsumer {
    return initialised(this.#consumer);
  }

  get #warnings(): Complaints {
    return initialised(this.#complaints);
  }

  /** Takes no more requests; resolves when each that was delivered is answered. Answers to our own still come. */
  drain(): Promise<void> {
    return this.#requests.drain();
  }

  /**
   * Changes how many unanswered requests each consumer of this node holds: a loaded node pulls less.
   * @throws TypeError unless an integer of at least 1
   */
  setPrefetch(prefetch: number): Promise<void> {
    return this.#requests.setPrefetch(prefetch);
  }

  override init(
    transit: Transit,
    messageHandler: (cmd: string, message: string) => void,
    afterConnect: (wasReconnect: boolean) => void,
  ): void {
    super.init(transit, messageHandler, afterConnect);
    this.prefix += `.${TOPOLOGY_VERSION}`;
    // Typed by Moleculer as taking a string; it takes the packet and returns a promise.
    this.#handle = messageHandler as unknown as PacketHandler;
    this.#topology = new Topology(this.prefix, this.#settings);
    this.#complaints = new Complaints(this.logger);
    this.#consumer = new RequestConsumer(
      {
        nodeID: this.nodeID,
        stealAfterMs: this.#settings.stealAfterMs,
        topology: this.#topology,
        age: this.#age,
        complaints: this.#complaints,
        observe: this.#settings.observe,
        handle: async (body) => this.receive("REQ", body),
        answer: (sender, id, error) => this.#answer(sender, id, error),
        fail: (reason) => this.#fail(reason),
      },
      this.#settings.prefetch,
    );
    this.broker.options.requestTimeout ||= this.#settings.maxDeadlineMs;
    this.#overrule(transit);
  }

  /** Takes from Moleculer the decisions that fit its own topology only. */
  #overrule(transit: Transit): void {
    // Called on an answer and on a time-out alike.
    const forget = transit.removePendingRequest.bind(transit);
    transit.removePendingRequest = (id) => {
      this.#outbox.delete(id);
      const request = transit.pendingRequests.get(id);
      forget(id);
      // Stock leaves a timed-out request unsettled, and its context with the tracker that a graceful stop waits for.
      if (request) rejectUnlessSettled(request);
    };
    // The request is still in RabbitMQ and another node will answer it.
    transit.removePendingRequestByNodeID = () => {};
    // While we hear nobody, silence proves nothing.
    const { discoverer } = transit;
    const check = discoverer.checkRemoteNodes.bind(discoverer);
    discoverer.checkRemoteNodes = () => {
      if (this.alive) check();
    };
  }

  /** Resolves when connected; tries again until then, and by itself whenever the connection is lost later. */
  override async connect(): Promise<void> {
    this.#stopping = false;
    this.#connecting = true;
    const { urls } = this.#settings;
    for (let attempt = 0; !(this.#stopping || this.#open); attempt++) {
      const url = urls[attempt % urls.length] ?? "";
      try {
        await this.#connectTo(url);
      } catch (error) {
        await this.#close();
        if (this.#stopping) break;
        const reason = messageOf(error);
        if (isMismatch(error) || (!this.#everOpen && isRefusal(error))) {
          this.broker.fatal(`RabbitMQ at ${redact(url)} refused this node: ${reason}`);
          throw error;
        }
        this.#warnings.about("RabbitMQ cannot be reached, trying again", { url: redact(url), reason });
        await delay(retryDelay(attempt));
      }
    }
    this.#connecting = false;
  }

  async #connectTo(url: string): Promise<void> {
    const connection = await openConnection(url, this.nodeID, this.#settings);
    if (this.#stopping) return close(connection, null);
    this.connection = connection;
    this.#blocked = false;
    // Each error is followed by a close, which has the reason.
    connection.on("error", () => {});
    connection.once("close", (error?: Error) => this.#lost(connection, error?.message ?? "closed"));
    connection.on("blocked", (reason: string) => {
      this.#blocked = true;
      this.logger.warn("RabbitMQ blocks this connection, requests wait", { reason });
    });
    connection.on("unblocked", () => {
      this.#blocked = false;
      this.logger.info("RabbitMQ unblocked this connection");
      this.#flush();
    });

    const channel = await connection.createChannel();
    let reason = "closed";
    channel.on("error", (error: Error) => {
      reason = error.message;
    });
    // A dying connection closes its channels first, but knows why.
    channel.once("close", () => queueMicrotask(() => this.#lost(connection, `channel: ${reason}`)));
    channel.on("return", (message: Message) => this.#onReturn(channel, message));
    await this.#declareExchanges(channel);
    this.channel = channel;
    this.bindings = [];
    // Before anything is consumed, so that no delivery is acknowledged ahead of its answer.
    for (const { topic, data, headers } of this.#answers.splice(0))
      channel.sendToQueue(topic, data, { headers });

    // The first time, Moleculer subscribes by itself as soon as it is told of the connection.
    if (this.#everOpen) {
      await super.makeSubscriptions(this.#topics);
      this.#resume();
    }
    await this.onConnected(this.#everOpen);
    if (this.channel !== channel) throw new Error("lost while connecting");
    this.#everOpen = true;
    this.#resume();
    this.logger.info("Connected to RabbitMQ", { url: redact(url) });
  }

  async #declareExchanges(channel: Channel): Promise<void> {
    const { sharedExchange, targetedExchange, deadExchange } = this.topology;
    await channel.assertExchange(sharedExchange, "topic");
    await channel.assertExchange(targetedExchange, "topic", { alternateExchange: sharedExchange });
    await channel.assertExchange(deadExchange, "fanout");
    const kept = this.topology.deadLetters();
    await channel.assertQueue(kept.name, kept.options);
  }

  #resume(): void {
    this.#open = true;
    this.connected = true;
    const now = Math.round(process.uptime());
    for (const node of this.broker.registry.nodes.toArray()) if (!node.local) node.lastHeartbeatTime = now;
    this.#flush();
  }

  /** Something broke that is not worth repairing by itself: start over with a new connection. */
  #fail(reason: string): void {
    if (this.connection) this.#lost(this.connection, reason);
  }

  #lost(connection: ChannelModel, reason: string): void {
    if (connection !== this.connection || this.#stopping) return;
    if (this.#open) this.logger.error("Lost RabbitMQ, reconnecting", { reason });
    const closed = this.#close();
    // An attempt under way notices by itself.
    if (!this.#connecting) void closed.then(() => delay(retryDelay(0))).then(() => this.#reconnect());
  }

  async #reconnect(): Promise<void> {
    // A fatal refusal was reported by `connect`.
    if (!this.#stopping) await this.connect().catch(() => {});
  }

  async #close(): Promise<void> {
    const { connection, channel } = this;
    this.#open = false;
    this.connected = false;
    this.connection = null;
    this.channel = null;
    this.#requests.detach();
    if (connection)
      await Promise.race([close(connection, channel), delay(CLOSE_TIMEOUT_MS, undefined, { ref: false })]);
  }

  override async disconnect(): Promise<void> {
    this.#stopping = true;
    await this.#close();
    this.#everOpen = false;
    this.#requests.reset();
  }

  override makeSubscriptions(topics: Record<string, unknown>[]): Promise<void> {
    this.#topics = topics;
    return super.makeSubscriptions(topics);
  }

  override async subscribe(cmd: string, nodeID?: string): Promise<void> {
    if (!this.channel) throw new Error("lost while subscribing");
    if (cmd === "REQ") return this.#requests.attach(this.channel);
    if (cmd === "RES") return this.#subscribeResponses(this.channel);
    return super.subscribe(cmd, nodeID);
  }

  async #subscribeResponses(channel: Channel): Promise<void> {
    const { name, options } = this.topology.responses(this.nodeID);
    await channel.assertQueue(name, options);
    const receive = this._consumeCB("RES");
    await startConsumer(channel, name, this.#settings.prefetch, (message) => {
      receive(message);
      if (message) channel.ack(message);
    });
  }

  override _getQueueOptions(packetType: string, balanced?: boolean): Record<string, unknown> {
    return {
      ...super._getQueueOptions(packetType, balanced),
      maxLength: 10 * this.#settings.maxQueueLength,
      // Else a virtual host's default may make them quorum queues, which cannot be auto-delete.
      arguments: { "x-queue-type": "classic" },
    };
  }

  override _consumeCB(cmd: string): (message: ConsumeMessage | null) => void {
    return (message) => {
      if (message === null) return this.#fail(`RabbitMQ cancelled the consumer of ${cmd}`);
      const { by, at } = message.properties.headers ?? {};
      if (typeof by === "string" && typeof at === "number") this.#age.of(by, at);
      void this.#receive(cmd, message.content);
    };
  }

  async #receive(cmd: string, content: Buffer): Promise<void> {
    try {
      await this.receive(cmd, content);
    } catch (error) {
      this.#warnings.about("A packet could not be processed", { cmd, reason: messageOf(error) });
    }
  }

  override async incomingMessage(cmd: string, message?: Buffer): Promise<void> {
    const payload = message && this.#read(cmd, message);
    if (!payload) return;
    if (cmd === "REQ") this.#requests.annotate(payload);
    if (cmd === "RES" && this.#isOfFormerCopy(payload)) return;
    await this.#handle?.(cmd, { payload });
  }

  /**
   * Whether this is the verdict on a copy that was sent again since. The connections of its nodes were lost with ours,
   * which its attempts count as deaths, so the newest copy speaks for the request.
   */
  #isOfFormerCopy({ id = "", error }: Payload): boolean {
    const request = this.#outbox.get(id);
    if (!request?.formerCopies || errorCode(error) !== "POISON_REQUEST") return false;
    request.formerCopies--;
    return true;
  }

  #read(cmd: string, message: Buffer): Payload | undefined {
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
      this.#warnings.about("Unreadable packet: another serializer, or garbage", { cmd });
      return undefined;
    }
    const { ver, sender } = payload as Payload;
    if (ver !== this.broker.PROTOCOL_VERSION && !this.transit.opts.disableVersionCheck) {
      this.#warnings.about("Packet of another protocol version", { cmd, sender, version: ver });
      return undefined;
    }
    return payload as Payload;
  }

  override async prepublish(packet: AnyPacket): Promise<void> {
    // Without a connection requests and answers wait; stock rejects the one and drops the other.
    if (packet.type === "REQ") return this.publish(packet);
    if (packet.type === "INFO") await this.#announce(packet.payload as Packet.PacketInfoPayload);
    // The caller's context takes over the answer's meta, and is no suspect.
    if (packet.type === "RES") {
      delete (packet.payload as unknown as Payload).meta?.["$suspect"];
      return this.publish(packet);
    }
    return super.prepublish(packet);
  }

  /** Consumes what the packet promises, before the promise is made; nothing any more, if it is the last one. */
  async #announce({ services }: Packet.PacketInfoPayload): Promise<void> {
    const actions = services.flatMap((service) => Object.keys(service["actions"] ?? {}));
    try {
      await this.#requests.serve(services.length > 0 ? actions : undefined);
    } catch (error) {
      const reason = messageOf(error);
      if (isMismatch(error)) this.broker.fatal(`RabbitMQ refused this node: ${reason}`);
      this.#fail(reason);
    }
  }

  override async send(topic: string, data: Buffer, { packet }: { packet: AnyPacket }): Promise<void> {
    if (packet.type === "REQ") return this.#sendRequest(packet as RequestPacket, data);
    const headers = { by: this.broker.instanceID, at: performance.now() };
    if (!this.channel) {
      if (packet.type === "RES") this.#answers.push({ topic, data, headers });
    } else if (packet.target != null) {
      this.channel.sendToQueue(topic, data, { headers });
    } else {
      this.channel.publish(topic, "", data, { headers });
    }
  }

  #sendRequest({ target, payload }: RequestPacket, body: Buffer): void {
    const { id, action, timeout } = payload;
    if (payload.stream) {
      this.#refuse(id, new ServingError("BAD_REQUEST", `A stream cannot be sent to ${action} over RabbitMQ`));
      return;
    }
    const node = target ?? "";
    const pinned =
      action.startsWith("$") || this.transit.pendingRequests.get(id)?.ctx.options.nodeID !== undefined;
    const request: Outgoing = {
      id,
      action,
      exchange: pinned ? "" : this.topology.targetedExchange,
      routingKey: pinned ? this.topology.pinned(node).name : this.topology.key(node, action),
      body,
      at: performance.now(),
      timeout: Math.min(timeout > 0 ? timeout : Number.POSITIVE_INFINITY, this.#settings.maxDeadlineMs),
    };
    if (this.#outbox.add(request)) this.#publish(request);
    else this.#refuse(id, new ServingError("QUEUE_FULL", `Too many requests wait for an answer`, { action }));
  }

  /** Fails a request quietly: what `publish` rejects with, Moleculer logs as an error, and this may be an overload. */
  #refuse(id: string, error: ServingError): void {
    this.transit.pendingRequests.get(id)?.reject(error);
    this.transit.removePendingRequest(id);
  }

  /** Sends what this channel has not carried yet: what waited for it, and what may have died with the last one. */
  #flush(): void {
    const { channel } = this;
    if (!channel) return;
    for (const { topic, data, headers } of this.#answers.splice(0))
      channel.sendToQueue(topic, data, { headers });
    for (const request of this.#outbox.unsentOn(channel)) this.#publish(request);
  }

  #publish(request: Outgoing): void {
    const { channel } = this;
    if (!channel || !this.alive || this.#blocked) return;
    const left = request.at + request.timeout - performance.now();
    if (left <= 0) return;
    if (request.sentOn) this.#settings.observe("resent", request.action);
    if (request.sentOn && request.sentOn !== channel) request.formerCopies = (request.formerCopies ?? 0) + 1;
    request.sentOn = channel;
    const options: Options.Publish = {
      messageId: request.id,
      replyTo: this.nodeID,
      type: request.action,
      expiration: Math.ceil(left),
      headers: { by: this.broker.instanceID, at: request.at, timeout: request.timeout },
      mandatory: true,
    };
    channel.publish(request.exchange, request.routingKey, request.body, options);
  }

  /** No queue for it: RabbitMQ lost its data, or the last node left for good. One may come back before the deadline. */
  #onReturn(channel: Channel, message: Message): void {
    const retry = () => {
      const request = this.#outbox.get(String(message.properties.messageId));
      if (request && channel === this.channel) this.#publish(request);
    };
    setTimeout(retry, this.#settings.stealAfterMs).unref();
  }

  #answer(sender: string, id: string, error: ServingError): void {
    void this.transit.sendResponse(sender, id, {}, {}, {}, error);
  }
}

/** The channel first: its close follows what was written to it, the connection's would overtake that. */
async function close(connection: ChannelModel, channel: Channel | null): Promise<void> {
  try {
    await channel?.close();
  } catch {
    // Closed already.
  }
  try {
    await connection.close();
  } catch {
    // Closed already.
  }
}

/** An answered request is settled right after it was removed. */
function rejectUnlessSettled(request: Transit.TransitRequest): void {
  const { resolve, reject } = request;
  let settled = false;
  request.resolve = (value) => {
    settled = true;
    resolve(value);
  };
  request.reject = (error) => {
    settled = true;
    reject(error);
  };
  queueMicrotask(() => {
    if (!settled) reject(new DeadlineExceededError("answer"));
  });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function initialised<T>(part: T | undefined): T {
  if (part === undefined) throw new Errors.BrokerOptionsError("The transporter belongs to no broker yet", {});
  return part;
}
