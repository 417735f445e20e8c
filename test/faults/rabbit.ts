import type { Options } from "amqplib";
import type { Random } from "../../testkit/random.ts";
import type { VirtualClock } from "../../testkit/virtual-clock.ts";
import type {
  Channel,
  ChannelEvents,
  Connect,
  Connection,
  ConnectionEvents,
  ConsumeOptions,
  Message,
} from "../../transporters/ports.ts";

/*
 * A model of what we use of RabbitMQ, on a clock of its own: exchanges, alternate exchanges, bindings, classic and quorum
 * queues, expiry and dead-lettering, delivery counts, consumers and their prefetch, exclusive and expiring queues, and
 * the loss of channels, connections and members. That it behaves like the real one is tested beside the real one
 * (`test/integration/rabbit-model.test.ts`). Names of rules are those of RabbitMQ's documentation.
 */

/** Milliseconds from one process to another, at least and at most. */
const LATENCY_MS = [0.1, 3] as const;

/** Cause of a cut: the process is stopped, so that its kernel answers and it does not. */
export const STOPPED = "stopped";

/** Until the members of a quorum queue have agreed on a new leader. */
const ELECTION_MS = [50, 800] as const;

interface Properties {
  readonly messageId?: string;
  readonly replyTo?: string;
  readonly type?: string;
  readonly appId?: string;
  readonly timestamp?: number;
  readonly headers: Readonly<Record<string, unknown>>;
}

/** A message in a queue. */
interface Stored {
  readonly content: Buffer;
  readonly exchange: string;
  readonly routingKey: string;
  readonly properties: Properties;
  /** Its own expiry, milliseconds. */
  readonly expiration: number | undefined;
  /** When it leaves this queue for its age. */
  readonly expiresAt: number;
  /** Order of arrival: where it goes back to. */
  readonly order: number;
  /** Times it was delivered and came back. */
  returns: number;
}

interface Consumer {
  readonly tag: string;
  readonly channel: ServerChannel;
  readonly queue: Queue;
  readonly prefetch: number;
  readonly noAck: boolean;
  held: number;
}

interface Delivery {
  readonly queue: Queue;
  readonly stored: Stored;
  readonly consumer: Consumer | undefined;
}

interface Binding {
  readonly exchange: string;
  readonly queue: string;
  readonly key: string;
}

interface Exchange {
  readonly type: "topic" | "direct" | "fanout";
  readonly alternate: string | undefined;
}

/** What was refused, as RabbitMQ words it. */
class Refusal extends Error {}

export interface RabbitOptions {
  readonly clock: VirtualClock;
  readonly random: Random;
  /** Members of the cluster. */
  readonly members: number;
  /** Seconds, as processes and RabbitMQ agreed on. */
  readonly heartbeatSeconds: number;
  /** Of the largest message: its `max_message_size`. @default RabbitMQ's own since 4.0 */
  readonly maxMessageBytes?: number;
  /** Sees all that processes publish. */
  readonly published?: (properties: Properties) => void;
}

/** A cluster of RabbitMQ. */
export class Rabbit {
  readonly clock: VirtualClock;
  readonly random: Random;
  readonly heartbeatMs: number;
  readonly exchanges = new Map<string, Exchange>();
  readonly queues = new Map<string, Queue>();
  readonly bindings: Binding[] = [];
  readonly maxMessageBytes: number;
  readonly published: (properties: Properties) => void;
  readonly #up: boolean[];
  readonly #links = new Set<Link>();
  #blockedBy: string | undefined;
  #orders = 0;

  constructor({
    clock,
    random,
    members,
    heartbeatSeconds,
    maxMessageBytes = 16_777_216,
    published = () => {},
  }: RabbitOptions) {
    this.maxMessageBytes = maxMessageBytes;
    this.published = published;
    this.clock = clock;
    this.random = random;
    this.heartbeatMs = heartbeatSeconds * 1000;
    this.#up = Array.from({ length: members }, () => true);
  }

  /** Addresses of the members, for a process that tries `first` first. */
  urls(first: number): string[] {
    return this.#up.map((_, i) => `amqp://member-${(first + i) % this.#up.length}`);
  }

  isUp(member: number): boolean {
    return this.#up[member] ?? false;
  }

  get members(): number {
    return this.#up.length;
  }

  get hasMajority(): boolean {
    return 2 * this.#up.filter(Boolean).length > this.#up.length;
  }

  get blockedBy(): string | undefined {
    return this.#blockedBy;
  }

  nextOrder(): number {
    return this.#orders++;
  }

  between([least, most]: readonly [number, number]): number {
    return least + (most - least) * this.random.next();
  }

  /**
   * How one process connects. Each of its connections is given to `onLink`, so that faults can be done to it.
   * @param inProcess runs what comes from RabbitMQ in the process's own time
   */
  connector(
    onLink: (link: Link) => void,
    inProcess: (event: () => void) => void = (event) => event(),
  ): Connect {
    return async (url, events) => {
      await new Promise<void>((resolve) => this.clock.setTimeout(resolve, this.between(LATENCY_MS) * 3));
      const member = Number(/member-(\d+)$/.exec(url)?.[1]);
      if (!this.isUp(member)) throw new Error("connect ECONNREFUSED");
      const link = new Link(this, member, events, inProcess);
      this.#links.add(link);
      onLink(link);
      if (this.#blockedBy) link.tellBlocked(this.#blockedBy);
      return link;
    };
  }

  forgetLink(link: Link): void {
    this.#links.delete(link);
  }

  /** kill -9 of a member. */
  kill(member: number): void {
    if (!this.isUp(member)) return;
    const paused = this.hasMajority;
    this.#up[member] = false;
    for (const link of [...this.#links]) if (link.member === member) link.reset("ECONNRESET");
    for (const queue of [...this.queues.values()]) queue.memberDied(member);
    if (paused && this.hasMajority)
      for (const queue of this.queues.values()) queue.elect(this.between(ELECTION_MS));
  }

  /** A member that was killed comes back, with what it had on disk: no transient message of a classic queue. */
  start(member: number): void {
    if (this.isUp(member)) return;
    this.#up[member] = true;
    for (const queue of this.queues.values()) queue.memberReturned(member);
    for (const queue of this.queues.values()) queue.elect(this.between(ELECTION_MS));
  }

  /** An operator closes all connections. */
  closeAll(): void {
    for (const link of [...this.#links]) link.reset("CONNECTION_FORCED - Closed via management plugin");
  }

  /** A memory or disk alarm: whoever publishes is not read any more. */
  block(reason: string): void {
    this.#blockedBy = reason;
    for (const link of this.#links) link.tellBlocked(reason);
  }

  unblock(): void {
    this.#blockedBy = undefined;
    for (const link of this.#links) link.tellUnblocked();
  }

  /** Names of the queues a message goes to; the alternate exchange is asked where there is none. */
  route(exchange: string, key: string): string[] {
    if (exchange === "") return this.queues.has(key) ? [key] : [];
    const found = this.exchanges.get(exchange);
    if (!found) throw new Refusal(`NOT_FOUND - no exchange '${exchange}'`);
    const { type, alternate } = found;
    const matches = (pattern: string) =>
      type === "fanout" || pattern === key || (type === "topic" && matchesTopic(pattern, key));
    const names = this.bindings
      .filter((binding) => binding.exchange === exchange && matches(binding.key))
      .map(({ queue }) => queue);
    if (names.length === 0 && alternate !== undefined) return this.route(alternate, key);
    return [...new Set(names)];
  }

  /** @returns whether any queue took it */
  publish(
    exchange: string,
    routingKey: string,
    message: Pick<Stored, "content" | "properties" | "expiration">,
  ): boolean {
    const names = this.route(exchange, routingKey);
    for (const name of names) this.queues.get(name)?.take({ ...message, exchange, routingKey });
    return names.length > 0;
  }

  deleteQueue(queue: Queue): void {
    this.queues.delete(queue.name);
    for (let i = this.bindings.length - 1; i >= 0; i--) {
      if (this.bindings[i]?.queue === queue.name) this.bindings.splice(i, 1);
    }
    queue.deleted();
  }
}

/** `*` is one word. */
function matchesTopic(pattern: string, key: string): boolean {
  const [wanted, words] = [pattern.split("."), key.split(".")];
  return wanted.length === words.length && wanted.every((word, i) => word === "*" || word === words[i]);
}

class Queue {
  readonly name: string;
  readonly type: "classic" | "quorum";
  /** Member that a classic queue lives on. */
  readonly home: number;
  readonly owner: Link | undefined;
  readonly options: Options.AssertQueue;
  readonly #rabbit: Rabbit;
  readonly #ready: Stored[] = [];
  readonly #consumers: Consumer[] = [];
  readonly #unacked = new Set<Delivery>();
  /** Those that have room, in the order of their turns. */
  readonly #free: Consumer[] = [];
  #gone = false;
  /** No leader until then. */
  #electedAt = 0;
  #expiry: unknown;
  #expiryAt = Number.POSITIVE_INFINITY;
  #disuse: unknown;
  /** Work that waits for a majority, or for the new leader. */
  readonly #waiting: (() => void)[] = [];

  constructor(rabbit: Rabbit, name: string, options: Options.AssertQueue, by: Link) {
    this.#rabbit = rabbit;
    this.name = name;
    this.options = options;
    this.type = options.arguments?.["x-queue-type"] === "quorum" ? "quorum" : "classic";
    this.home = by.member;
    this.owner = options.exclusive ? by : undefined;
    this.#used();
  }

  get length(): number {
    return this.#ready.length;
  }

  get unacked(): number {
    return this.#unacked.size;
  }

  get consumers(): number {
    return this.#consumers.length;
  }

  /** Whether its data can be reached. */
  get isUp(): boolean {
    if (this.type === "classic") return this.#rabbit.isUp(this.home);
    return this.#rabbit.hasMajority && this.#rabbit.clock.now() >= this.#electedAt;
  }

  /** A new leader takes so long. */
  elect(ms: number): void {
    if (this.type !== "quorum") return;
    this.#electedAt = this.#rabbit.clock.now() + ms;
    this.#rabbit.clock.setTimeout(() => this.#resume(), ms);
  }

  /** Runs it now, or as soon as there is a leader. */
  whenUp(work: () => void): void {
    if (this.isUp) work();
    else this.#waiting.push(work);
  }

  memberDied(member: number): void {
    if (this.type === "quorum" || this.home !== member) return;
    if (this.owner) {
      this.#rabbit.deleteQueue(this);
      return;
    }
    this.#ready.length = 0;
    this.#unacked.clear();
    this.#free.length = 0;
    for (const consumer of this.#consumers.splice(0)) consumer.channel.cancelled(consumer);
  }

  memberReturned(member: number): void {
    if (this.type === "classic" && this.home === member) this.#used();
  }

  deleted(): void {
    this.#gone = true;
    this.#rabbit.clock.clearTimeout(this.#expiry);
    this.#rabbit.clock.clearTimeout(this.#disuse);
    this.#free.length = 0;
    for (const consumer of this.#consumers.splice(0)) consumer.channel.cancelled(consumer);
  }

  take(message: Pick<Stored, "content" | "properties" | "expiration" | "exchange" | "routingKey">): void {
    // A classic queue whose member is down loses what is put into it, and nobody is told.
    if (this.type === "classic" && !this.isUp) return;
    this.whenUp(() => {
      const { messageTtl = Number.POSITIVE_INFINITY } = this.options;
      const age = Math.min(messageTtl, message.expiration ?? Number.POSITIVE_INFINITY);
      const now = this.#rabbit.clock.now();
      this.#ready.push({ ...message, expiresAt: now + age, order: this.#rabbit.nextOrder(), returns: 0 });
      this.#dropSurplus();
      this.#flow();
    });
  }

  subscribe(consumer: Consumer): void {
    this.#consumers.push(consumer);
    this.#free.push(consumer);
    this.#used();
    this.#flow();
  }

  unsubscribe(consumer: Consumer): void {
    for (const list of [this.#consumers, this.#free]) {
      const at = list.indexOf(consumer);
      if (at >= 0) list.splice(at, 1);
    }
    this.#used();
  }

  /** Takes the oldest message, for `basic.get`. */
  fetch(): { readonly stored: Stored; readonly delivery: Delivery } | undefined {
    this.#used();
    this.#expire();
    const stored = this.#ready.shift();
    if (!stored) return undefined;
    const delivery: Delivery = { queue: this, stored, consumer: undefined };
    this.#unacked.add(delivery);
    return { stored, delivery };
  }

  purge(): number {
    return this.#ready.splice(0).length;
  }

  /** It is dealt with. */
  settle(delivery: Delivery): void {
    this.#release(delivery);
    this.whenUp(() => this.#flow());
  }

  /** Back to where they were, all at once. */
  giveBack(deliveries: readonly Delivery[]): void {
    const back = deliveries.filter((delivery) => this.#release(delivery));
    if (back.length === 0) return;
    this.whenUp(() => {
      const limit = Number(this.options.arguments?.["x-delivery-limit"] ?? Number.POSITIVE_INFINITY);
      for (const { stored } of back) {
        stored.returns++;
        if (this.type === "quorum" && stored.returns > limit) this.#deadLetter(stored, "delivery_limit");
        else this.#putBack(stored);
      }
      // A classic queue is cut to its length before anything is delivered, a quorum queue after.
      if (this.type === "quorum") this.#flow();
      this.#dropSurplus();
      this.#flow();
    });
  }

  /** A classic queue knows where it was; a quorum queue has what came back go first, in the order in which it came. */
  #putBack(stored: Stored): void {
    const isBehind = ({ order, returns }: Stored) =>
      this.type === "classic" ? order > stored.order : returns === 0;
    const at = this.#ready.findIndex(isBehind);
    this.#ready.splice(at < 0 ? this.#ready.length : at, 0, stored);
  }

  /** The oldest leave when it is too long: `drop-head`. */
  #dropSurplus(): void {
    const { maxLength = Number.POSITIVE_INFINITY } = this.options;
    while (this.#ready.length > maxLength) this.#deadLetter(this.#ready.shift() as Stored, "maxlen");
  }

  refuse(delivery: Delivery): void {
    if (!this.#release(delivery)) return;
    this.whenUp(() => {
      this.#deadLetter(delivery.stored, "rejected");
      this.#flow();
    });
  }

  /** @returns whether it was this queue's: what was held when the queue's home died is nobody's any more */
  #release(delivery: Delivery): boolean {
    const { consumer } = delivery;
    if (consumer && consumer.held-- === consumer.prefetch && this.#consumers.includes(consumer))
      this.#free.push(consumer);
    return this.#unacked.delete(delivery);
  }

  #resume(): void {
    if (!this.isUp) return;
    for (const work of this.#waiting.splice(0)) work();
    this.#flow();
  }

  #flow(): void {
    if (this.#gone || !this.isUp) return;
    this.#expire();
    while (this.#ready.length > 0) {
      const consumer = this.#next();
      if (!consumer) break;
      const stored = this.#ready.shift() as Stored;
      const delivery: Delivery = { queue: this, stored, consumer };
      if (!consumer.noAck) {
        consumer.held++;
        this.#unacked.add(delivery);
      }
      consumer.channel.deliver(consumer, delivery);
    }
    this.#watchExpiry();
  }

  /** The consumer whose turn it is. One that has its hands full loses its turn until it has room again. */
  #next(): Consumer | undefined {
    const consumer = this.#free.shift();
    if (consumer && (consumer.noAck || consumer.prefetch === 0 || consumer.held + 1 < consumer.prefetch))
      this.#free.push(consumer);
    return consumer;
  }

  /** Only what is at the head is looked at. */
  #expire(): void {
    const now = this.#rabbit.clock.now();
    for (let head = this.#ready[0]; head && head.expiresAt <= now; head = this.#ready[0]) {
      this.#ready.shift();
      this.#deadLetter(head, "expired");
    }
  }

  #watchExpiry(): void {
    const at = this.#ready[0]?.expiresAt ?? Number.POSITIVE_INFINITY;
    if (at === this.#expiryAt || this.#gone) return;
    const { clock } = this.#rabbit;
    clock.clearTimeout(this.#expiry);
    this.#expiryAt = at;
    if (at === Number.POSITIVE_INFINITY) return;
    this.#expiry = clock.setTimeout(() => {
      this.#expiryAt = Number.POSITIVE_INFINITY;
      this.#flow();
    }, at - clock.now());
  }

  #deadLetter({ content, properties, expiration, exchange, routingKey }: Stored, reason: string): void {
    const target = this.options.deadLetterExchange;
    if (target === undefined || !this.#rabbit.exchanges.has(target)) return;
    const deaths = (properties.headers["x-death"] ?? []) as readonly Record<string, unknown>[];
    const isSame = (death: Record<string, unknown>) =>
      death["queue"] === this.name && death["reason"] === reason;
    const known = deaths.find(isSame);
    const death = {
      ...(known ?? {
        queue: this.name,
        reason,
        exchange,
        "routing-keys": [routingKey],
        ...(expiration === undefined ? {} : { "original-expiration": String(expiration) }),
      }),
      count: Number(known?.["count"] ?? 0) + 1,
    };
    const { "x-delivery-count": _, ...headers } = properties.headers;
    this.#rabbit.publish(target, routingKey, {
      content,
      expiration: undefined,
      properties: {
        ...properties,
        headers: { ...headers, "x-death": [death, ...deaths.filter((other) => !isSame(other))] },
      },
    });
  }

  /** Without consumers for `expires` it is deleted, with all that is in it. */
  #used(): void {
    const { expires } = this.options;
    const { clock } = this.#rabbit;
    clock.clearTimeout(this.#disuse);
    if (expires === undefined || this.#consumers.length > 0 || this.#gone) return;
    this.#disuse = clock.setTimeout(() => {
      if (this.isUp && this.#consumers.length === 0) this.#rabbit.deleteQueue(this);
      else this.#used();
    }, expires);
  }
}

/** A connection, both ends of it, with the way between them. */
export class Link implements Connection {
  readonly member: number;
  readonly rabbit: Rabbit;
  readonly #events: ConnectionEvents;
  readonly #inProcess: (event: () => void) => void;
  readonly #channels = new Set<ServerChannel>();
  /** What goes up, to RabbitMQ, and what comes down: in order, each at its time. */
  readonly #up = new Pipe(this);
  readonly #down = new Pipe(this);
  /** Commands without their answer yet. */
  readonly #asking = new Set<(error: Error) => void>();
  /** Why nothing passes. */
  readonly #causes = new Set<string>();
  /** Timers of the ends that have not noticed yet that nothing passes. */
  #serverDoubts: unknown;
  #clientDoubts: unknown;
  #publishes = false;
  #told = false;
  /** Either end is gone. */
  serverOpen = true;
  clientOpen = true;
  #tags = 0;

  constructor(
    rabbit: Rabbit,
    member: number,
    events: ConnectionEvents,
    inProcess: (event: () => void) => void,
  ) {
    this.#inProcess = inProcess;
    this.rabbit = rabbit;
    this.member = member;
    this.#events = events;
  }

  async openChannel(events: ChannelEvents = {}): Promise<Channel> {
    const channel = new ServerChannel(this, events);
    await this.ask(() => {
      this.#channels.add(channel);
    });
    return channel;
  }

  async close(): Promise<void> {
    if (!this.clientOpen) throw new Error("Connection closed");
    await this.ask(() => this.#endServer());
    this.endClient("closed", false);
  }

  nextTag(): string {
    return `tag-${this.#tags++}`;
  }

  /** A command with an answer. */
  ask<T>(command: () => T | Promise<T>): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const lost = (error: Error) => reject(error);
    if (this.clientOpen) this.#asking.add(lost);
    else reject(new Error("Connection closed"));
    this.#up.send(() => {
      if (!this.serverOpen) return;
      const answered = (send: () => void) =>
        this.down(() => {
          this.#asking.delete(lost);
          send();
        });
      try {
        const answer = command();
        if (answer instanceof Promise) {
          answer.then(
            (value) => answered(() => resolve(value)),
            (error) => answered(() => reject(error)),
          );
        } else answered(() => resolve(answer));
      } catch (error) {
        answered(() => reject(error as Error));
      }
    });
    return promise;
  }

  /** A command without an answer. */
  tell(command: () => void): void {
    this.#up.send(() => {
      if (this.serverOpen) command();
    });
  }

  down(event: () => void): void {
    this.#down.send(() =>
      this.#inProcess(() => {
        if (this.clientOpen) event();
      }),
    );
  }

  /** It has published: an alarm stops it. */
  published(): void {
    this.#publishes = true;
    if (this.rabbit.blockedBy) this.tellBlocked(this.rabbit.blockedBy);
  }

  tellBlocked(reason: string): void {
    if (!this.#publishes || !this.serverOpen) return;
    this.#up.hold("alarm");
    if (this.#told) return;
    this.#told = true;
    this.down(() => this.#events.blocked(reason));
  }

  tellUnblocked(): void {
    this.#up.release("alarm");
    if (!this.#told) return;
    this.#told = false;
    this.down(() => this.#events.unblocked());
  }

  /** Both ends learn of it, what was on its way is lost. */
  reset(reason: string): void {
    this.#endServer();
    this.rabbit.clock.setTimeout(() => this.endClient(reason), this.rabbit.between(LATENCY_MS));
  }

  /** The process is gone: its kernel says so, unless nothing passes. */
  processDied(): void {
    this.clientOpen = false;
    this.#hangUp();
  }

  /**
   * Nothing passes in either direction until `heal` is told the same cause, and nobody is told; heartbeats find out,
   * each end for itself. Causes may overlap.
   */
  cut(cause: string): void {
    this.#causes.add(cause);
    this.#up.hold("cut");
    this.#down.hold("cut");
    this.#watchSilence();
  }

  /** Undoes `cut`. Without another cause what waited goes on, unless an end has given up. */
  heal(cause: string): void {
    if (!this.#causes.delete(cause)) return;
    this.#watchSilence();
    if (this.#causes.size > 0) return;
    this.#up.release("cut");
    this.#down.release("cut");
    if (!this.serverOpen) this.endClient("ECONNRESET");
    else if (!this.clientOpen) this.#hangUp();
  }

  /** Each end has heard nothing for so long; a stopped process looks at no clock. */
  #watchSilence(): void {
    const { clock, heartbeatMs, random } = this.rabbit;
    const silence = () => heartbeatMs * (1.5 + random.next());
    const [serverHears, clientHears] = [
      this.#causes.size === 0,
      this.#causes.size === 0 || this.#causes.has(STOPPED),
    ];
    if (serverHears) clock.clearTimeout(this.#serverDoubts);
    if (clientHears) clock.clearTimeout(this.#clientDoubts);
    if (serverHears) this.#serverDoubts = undefined;
    else this.#serverDoubts ??= clock.setTimeout(() => this.#endServer(), silence());
    if (clientHears) this.#clientDoubts = undefined;
    else this.#clientDoubts ??= clock.setTimeout(() => this.endClient("Heartbeat timeout"), silence());
  }

  /** The client's socket is closed: RabbitMQ reads that, if anything gets there; else its heartbeats find out. */
  #hangUp(): void {
    if ([...this.#causes].some((cause) => cause !== STOPPED)) return;
    this.rabbit.clock.setTimeout(() => this.#endServer(), this.rabbit.between(LATENCY_MS));
  }

  /** RabbitMQ closes one channel, as after an acknowledgement of something unknown. */
  closeChannel(reason: string): void {
    for (const channel of [...this.#channels].slice(0, 1)) channel.refuse(new Error(reason));
  }

  #endServer(): void {
    if (!this.serverOpen) return;
    this.serverOpen = false;
    for (const channel of [...this.#channels]) channel.end();
    for (const queue of [...this.rabbit.queues.values()]) {
      if (queue.owner === this) this.rabbit.deleteQueue(queue);
    }
    this.rabbit.forgetLink(this);
  }

  endClient(reason: string, tell = true): void {
    this.#inProcess(() => this.#endClient(reason, tell));
  }

  #endClient(reason: string, tell: boolean): void {
    if (!this.clientOpen) return;
    this.clientOpen = false;
    for (const lost of this.#asking) lost(new Error(`Connection closed: ${reason}`));
    this.#asking.clear();
    for (const channel of this.#channels) channel.lost(reason);
    this.#hangUp();
    if (tell) this.#events.closed(reason);
  }

  channelGone(channel: ServerChannel): void {
    this.#channels.delete(channel);
  }
}

/** One direction of a connection: first in, first out, each after its time on the way. */
class Pipe {
  readonly #link: Link;
  readonly #holds = new Set<string>();
  readonly #held: (() => void)[] = [];
  #lastAt = 0;

  constructor(link: Link) {
    this.#link = link;
  }

  send(event: () => void): void {
    const { clock, between } = { clock: this.#link.rabbit.clock, between: this.#link.rabbit };
    const at = Math.max(this.#lastAt, clock.now() + between.between(LATENCY_MS));
    this.#lastAt = at;
    clock.setTimeout(() => this.#arrive(event), at - clock.now());
  }

  hold(reason: string): void {
    this.#holds.add(reason);
  }

  release(reason: string): void {
    this.#holds.delete(reason);
    if (this.#holds.size > 0) return;
    // At once: what was sent later may be about to arrive.
    while (this.#holds.size === 0 && this.#held.length > 0) this.#held.shift()?.();
  }

  #arrive(event: () => void): void {
    if (this.#holds.size > 0 || this.#held.length > 0) this.#held.push(event);
    else event();
  }
}

/** A channel: the client's end as a port, and RabbitMQ's. */
class ServerChannel implements Channel {
  readonly #link: Link;
  readonly #events: ChannelEvents;
  readonly #deliveries = new Map<number, Delivery>();
  readonly #consumers = new Map<
    string,
    { consumer: Consumer | undefined; onMessage: (message: Message | null) => void }
  >();
  #nextDelivery = 1;
  /** The client may still use it. */
  #open = true;
  /** RabbitMQ still heeds it. */
  #heeded = true;

  constructor(link: Link, events: ChannelEvents) {
    this.#link = link;
    this.#events = events;
  }

  get #rabbit(): Rabbit {
    return this.#link.rabbit;
  }

  get #isOpen(): boolean {
    return this.#open && this.#link.clientOpen;
  }

  #assertOpen(): void {
    if (!this.#isOpen) throw new Error("Channel closed");
  }

  async #ask<T>(command: () => T | Promise<T>): Promise<T> {
    this.#assertOpen();
    return this.#link.ask(() => {
      // What comes for a channel that RabbitMQ has closed is dropped.
      if (!this.#heeded) return new Promise<T>(() => {});
      try {
        return command();
      } catch (error) {
        this.refuse(error as Error);
        throw error;
      }
    });
  }

  assertExchange(
    name: string,
    type: "topic" | "direct" | "fanout",
    { alternateExchange }: Options.AssertExchange,
  ): Promise<void> {
    return this.#ask(() => {
      if (!this.#rabbit.exchanges.has(name))
        this.#rabbit.exchanges.set(name, { type, alternate: alternateExchange });
    });
  }

  assertQueue(name: string, options: Options.AssertQueue): Promise<void> {
    return this.#ask(() => {
      const known = this.#rabbit.queues.get(name);
      if (!known) {
        if (options.arguments?.["x-queue-type"] === "quorum" && !this.#rabbit.hasMajority)
          return new Promise<void>(() => {});
        this.#rabbit.queues.set(name, new Queue(this.#rabbit, name, options, this.#link));
        return undefined;
      }
      this.#find(name);
      if (known.options.exclusive !== options.exclusive)
        throw new Refusal(`RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '${name}'`);
      if (JSON.stringify(sorted(known.options)) !== JSON.stringify(sorted(options)))
        throw new Refusal(`PRECONDITION_FAILED - inequivalent arg for queue '${name}'`);
      return new Promise<void>((resolve) => known.whenUp(resolve));
    });
  }

  /** @throws Refusal if this connection cannot use it */
  #find(name: string): Queue {
    const queue = this.#rabbit.queues.get(name);
    if (!queue) throw new Refusal(`NOT_FOUND - no queue '${name}'`);
    if (queue.owner && queue.owner !== this.#link)
      throw new Refusal(`RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '${name}'`);
    if (queue.type === "classic" && !queue.isUp)
      throw new Refusal(`NOT_FOUND - home node of durable queue '${name}' is down or inaccessible`);
    return queue;
  }

  bindQueue(queue: string, exchange: string, key: string): Promise<void> {
    return this.#ask(() => {
      this.#find(queue);
      const { bindings } = this.#rabbit;
      if (!bindings.some((each) => each.queue === queue && each.exchange === exchange && each.key === key))
        bindings.push({ queue, exchange, key });
    });
  }

  consume(
    name: string,
    onMessage: (message: Message | null) => void,
    { prefetch = 0, noAck = false }: ConsumeOptions,
  ): Promise<string> {
    const tag = this.#link.nextTag();
    const entry: { consumer: Consumer | undefined; onMessage: typeof onMessage } = {
      consumer: undefined,
      onMessage,
    };
    // Deliveries may come ahead of the answer's `then`.
    this.#consumers.set(tag, entry);
    return this.#ask(() => {
      const queue = this.#find(name);
      const consumer: Consumer = { tag, channel: this, queue, prefetch, noAck, held: 0 };
      entry.consumer = consumer;
      return new Promise<string>((resolve) =>
        queue.whenUp(() => {
          resolve(tag);
          if (this.#heeded && this.#link.serverOpen) queue.subscribe(consumer);
        }),
      );
    });
  }

  cancel(tag: string): Promise<void> {
    return this.#ask(() => {
      const consumer = this.#consumers.get(tag)?.consumer;
      if (consumer) consumer.queue.unsubscribe(consumer);
    });
  }

  flush(): Promise<void> {
    return this.#ask(() => {});
  }

  publish(exchange: string, key: string, content: Buffer, options: Options.Publish): boolean {
    if (!this.#isOpen) return true;
    const { messageId, replyTo, type, appId, timestamp, headers = {}, expiration, mandatory } = options;
    const properties: Properties = {
      ...(messageId === undefined ? {} : { messageId }),
      ...(replyTo === undefined ? {} : { replyTo }),
      ...(type === undefined ? {} : { type }),
      ...(appId === undefined ? {} : { appId }),
      ...(timestamp === undefined ? {} : { timestamp }),
      headers: structuredClone(headers) as Record<string, unknown>,
    };
    this.#link.tell(() => {
      if (!this.#heeded) return;
      try {
        const message = {
          content,
          properties,
          expiration: expiration === undefined ? undefined : Number(expiration),
        };
        this.#rabbit.published(properties);
        const most = this.#rabbit.maxMessageBytes;
        if (content.length > most)
          throw new Refusal(
            `PRECONDITION_FAILED - message size ${content.length} is larger than configured max size ${most}`,
          );
        const routed = this.#rabbit.publish(exchange, key, message);
        if (mandatory && !routed) {
          const returned = { content, properties, fields: { deliveryTag: 0, redelivered: false } };
          this.#link.down(() => this.#events.returned?.(returned));
        }
      } catch (error) {
        this.refuse(error as Error);
      }
      this.#link.published();
    });
    return true;
  }

  ack({ fields: { deliveryTag } }: Message): void {
    this.#answer(deliveryTag, (delivery) => delivery.queue.settle(delivery));
  }

  reject({ fields: { deliveryTag } }: Message, requeue: boolean): void {
    this.#answer(deliveryTag, (delivery) =>
      requeue ? delivery.queue.giveBack([delivery]) : delivery.queue.refuse(delivery),
    );
  }

  #answer(tag: number, settle: (delivery: Delivery) => void): void {
    if (!this.#isOpen) return;
    this.#link.tell(() => {
      if (!this.#heeded) return;
      const delivery = this.#deliveries.get(tag);
      if (!delivery) {
        this.refuse(new Error(`PRECONDITION_FAILED - unknown delivery tag ${tag}`));
        return;
      }
      this.#deliveries.delete(tag);
      settle(delivery);
    });
  }

  get(name: string): Promise<Message | undefined> {
    return this.#ask(() => {
      const fetched = this.#find(name).fetch();
      if (!fetched) return undefined;
      const tag = this.#nextDelivery++;
      this.#deliveries.set(tag, fetched.delivery);
      return asMessage(fetched.stored, fetched.delivery.queue, tag);
    });
  }

  purgeQueue(name: string): Promise<number> {
    return this.#ask(() => this.#find(name).purge());
  }

  async close(): Promise<void> {
    await this.#ask(() => this.end());
    this.#open = false;
    this.#link.channelGone(this);
  }

  deliver({ tag }: Consumer, delivery: Delivery): void {
    const number = this.#nextDelivery++;
    if (!delivery.consumer?.noAck) this.#deliveries.set(number, delivery);
    const message = asMessage(delivery.stored, delivery.queue, number);
    this.#link.down(() => {
      if (this.#open) this.#consumers.get(tag)?.onMessage(message);
    });
  }

  /** The consumer's queue is gone. */
  cancelled({ tag }: Consumer): void {
    if (!this.#heeded) return;
    this.#link.down(() => {
      if (this.#open) this.#consumers.get(tag)?.onMessage(null);
    });
  }

  /** RabbitMQ closes it: a command was wrong. */
  refuse(error: Error): Error {
    if (!this.#heeded) return error;
    this.end();
    this.#link.down(() => this.lost(error.message));
    return error;
  }

  /** RabbitMQ's end: everything that was delivered and not answered goes back. */
  end(): void {
    if (!this.#heeded) return;
    this.#heeded = false;
    for (const { consumer } of this.#consumers.values()) if (consumer) consumer.queue.unsubscribe(consumer);
    const held = Map.groupBy(this.#deliveries.values(), ({ queue }) => queue);
    for (const [queue, deliveries] of held) queue.giveBack(deliveries);
    this.#deliveries.clear();
  }

  /** The client's end. */
  lost(reason: string): void {
    if (!this.#open) return;
    this.#open = false;
    this.#events.closed?.(reason);
  }
}

function asMessage({ content, properties, returns }: Stored, queue: Queue, deliveryTag: number): Message {
  const counts = queue.type === "quorum" && returns > 0 ? { "x-delivery-count": returns } : {};
  return {
    content,
    fields: { deliveryTag, redelivered: returns > 0 },
    properties: { ...properties, headers: { ...properties.headers, ...counts } },
  };
}

function sorted(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, each]) => each !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, each]) => [key, sorted(each)]),
  );
}
