import type { Options } from "amqplib";
import { Random } from "../../testkit/random.ts";
import { VirtualClock } from "../../testkit/virtual-clock.ts";
import type { Channel, Connect, Connection, Message } from "../../transporters/ports.ts";
import { type Link, Rabbit } from "./rabbit.ts";

/** One thing done to RabbitMQ. Names are without their prefix. */
export type Operation =
  | { readonly do: "connect"; readonly connection: number }
  | { readonly do: "drop"; readonly connection: number }
  | { readonly do: "open"; readonly channel: number; readonly connection: number }
  | { readonly do: "close" | "wrong-ack"; readonly channel: number }
  | {
      readonly do: "exchange";
      readonly channel: number;
      readonly name: string;
      readonly type: "topic" | "direct" | "fanout";
      readonly alternate?: string;
    }
  | {
      readonly do: "queue";
      readonly channel: number;
      readonly name: string;
      readonly options: Options.AssertQueue;
    }
  | {
      readonly do: "bind";
      readonly channel: number;
      readonly queue: string;
      readonly exchange: string;
      readonly key: string;
    }
  | {
      readonly do: "publish";
      readonly channel: number;
      readonly exchange: string;
      readonly key: string;
      readonly body: string;
      readonly mandatory: boolean;
      readonly expiration?: number;
    }
  | {
      readonly do: "consume";
      readonly channel: number;
      readonly queue: string;
      readonly consumer: string;
      readonly prefetch: number;
      readonly noAck: boolean;
    }
  | { readonly do: "cancel"; readonly channel: number; readonly consumer: string }
  | {
      readonly do: "ack" | "reject" | "requeue";
      readonly channel: number;
      /** By which consumer it came; `get`: none. */
      readonly by: string;
      readonly body: string;
    }
  | { readonly do: "get" | "purge"; readonly channel: number; readonly queue: string }
  /** Everything that has a time of its own is over. */
  | { readonly do: "wait" }
  /** The connections end, and what is left is fetched from each queue. */
  | { readonly do: "end" };

/** What can be seen from outside: events in their order, by channel and consumer. */
export type Seen = Readonly<Record<string, readonly string[]>>;

/** A script, and what the model shows after each of its operations. */
export interface Script {
  readonly seed: number;
  readonly operations: readonly Operation[];
  readonly seen: readonly Seen[];
}

/** Expiry of messages and queues: longer than a script takes between waits, on a machine that is not too busy. */
export const TIME_MS = 4000;
export const WAIT_MS = TIME_MS + 500;
/** Of scripts, those in which time matters: they take long. */
const TIMED = 0.3;
/** What a command and all that follows from it take in the model. */
const STEP_MS = 20;
const QUEUES = ["q0", "q1", "q2", "q3"];
const CHANNELS_OF_A_CONNECTION = 2;
const CONNECTIONS = 2;

interface Delivered {
  readonly by: string;
  readonly message: Message;
}

interface OpenChannel {
  readonly channel: Channel;
  readonly connection: number;
  readonly tags: Map<string, string>;
  /** Queues that it has ever consumed. */
  readonly consumed: Set<string>;
  /** Deliveries that wait for their answer. */
  readonly delivered: Delivered[];
}

/** Does operations to a RabbitMQ, or to the model of it, and writes down what can be seen. */
export class Stage {
  readonly #connect: Connect;
  readonly #url: string;
  readonly #prefix: string;
  readonly #drop: (connection: Connection) => Promise<void> | void;
  readonly #connections = new Map<number, Connection>();
  readonly channels = new Map<number, OpenChannel>();
  readonly #seen: Record<string, string[]> = {};
  /** Queues that were declared. */
  readonly queues = new Set<string>();

  /** @param drop breaks a connection off, without a goodbye; resolves when RabbitMQ has noticed */
  constructor(
    connect: Connect,
    url: string,
    prefix: string,
    drop: (connection: Connection) => Promise<void> | void,
  ) {
    this.#connect = connect;
    this.#url = url;
    this.#prefix = prefix;
    this.#drop = drop;
  }

  get seen(): Seen {
    return structuredClone(this.#seen);
  }

  get connected(): number[] {
    return [...this.#connections.keys()];
  }

  #note(stream: string, event: string): void {
    const events = this.#seen[stream] ?? [];
    this.#seen[stream] = events;
    events.push(event);
  }

  #full(name: string): string {
    return name === "" ? "" : `${this.#prefix}.${name}`;
  }

  /** A message as it was delivered, without what the one and the other write differently. */
  #describe({ content, fields, properties: { headers = {} } }: Message): string {
    const deaths = ((headers["x-death"] ?? []) as readonly Record<string, unknown>[]).map((death) =>
      [
        death["reason"],
        String(death["queue"]).slice(this.#prefix.length + 1),
        death["count"],
        String(death["exchange"]).slice(this.#prefix.length + 1),
        String(death["routing-keys"]).replaceAll(`${this.#prefix}.`, ""),
        death["original-expiration"] ?? "-",
      ].join(" "),
    );
    return [
      content.toString(),
      fields.redelivered ? "again" : "first",
      // A count of 0 is written by some versions, and left out by others.
      `count ${headers["x-delivery-count"] ?? 0}`,
      ...deaths,
    ].join(", ");
  }

  async apply(operation: Operation): Promise<void> {
    if (operation.do === "wait") return;
    if (operation.do === "end") return this.#end();
    if (operation.do === "connect") {
      const { connection } = operation;
      const opened: Connection = await this.#connect(this.#url, {
        closed: () => {
          if (this.#connections.get(connection) === opened) this.#lost(connection);
        },
        blocked() {},
        unblocked() {},
      });
      this.#connections.set(connection, opened);
      return;
    }
    if (operation.do === "drop") {
      const connection = this.#connections.get(operation.connection);
      this.#lost(operation.connection);
      if (connection) await this.#drop(connection);
      return;
    }
    if (operation.do === "open") {
      const { channel, connection } = operation;
      const opened = await this.#connections.get(connection)?.openChannel({
        returned: ({ content }) => this.#note(`channel ${channel} returns`, content.toString()),
        closed: (reason) => {
          if (this.channels.get(channel)?.channel !== opened) return;
          this.channels.delete(channel);
          const why = /[A-Z]+_[A-Z_]+/.exec(reason)?.[0] ?? "in good order";
          this.#note(`channel ${channel}`, `closed ${why}`);
        },
      });
      if (opened)
        this.channels.set(channel, {
          channel: opened,
          connection,
          tags: new Map(),
          consumed: new Set(),
          delivered: [],
        });
      return;
    }
    const open = this.channels.get(operation.channel);
    if (!open) throw new Error(`Channel ${operation.channel} is not open`);
    await this.#on(open, operation);
  }

  async #on(
    { channel, tags, consumed, delivered }: OpenChannel,
    operation: Extract<Operation, { channel: number }>,
  ): Promise<void> {
    const stream = `channel ${operation.channel}`;
    switch (operation.do) {
      case "open":
        return;
      case "close":
        this.channels.delete(operation.channel);
        await channel.close();
        return;
      case "wrong-ack":
        channel.ack({
          content: Buffer.of(),
          fields: { deliveryTag: 999, redelivered: false },
          properties: {},
        });
        return;
      case "exchange": {
        const { name, type, alternate } = operation;
        const options = alternate === undefined ? {} : { alternateExchange: this.#full(alternate) };
        await channel.assertExchange(this.#full(name), type, { ...options, durable: true });
        return;
      }
      case "queue": {
        const { name, options } = operation;
        const target = options.deadLetterExchange;
        await channel.assertQueue(this.#full(name), {
          ...options,
          ...(target === undefined ? {} : { deadLetterExchange: this.#full(target) }),
        });
        this.queues.add(name);
        return;
      }
      case "bind":
        await channel.bindQueue(this.#full(operation.queue), this.#full(operation.exchange), operation.key);
        return;
      case "publish": {
        const { exchange, key, body, mandatory, expiration } = operation;
        channel.publish(
          this.#full(exchange),
          exchange === "" ? this.#full(key) : key,
          Buffer.from(body),
          expiration === undefined ? { mandatory } : { mandatory, expiration },
        );
        await channel.flush();
        return;
      }
      case "consume": {
        const { queue, consumer, prefetch, noAck } = operation;
        const onMessage = (message: Message | null) => {
          if (message && !noAck) delivered.push({ by: consumer, message });
          this.#note(`consumer ${consumer}`, message ? this.#describe(message) : "cancelled");
        };
        consumed.add(queue);
        tags.set(consumer, await channel.consume(this.#full(queue), onMessage, { prefetch, noAck }));
        return;
      }
      case "cancel":
        await channel.cancel(tags.get(operation.consumer) ?? "");
        tags.delete(operation.consumer);
        return;
      case "ack":
      case "reject":
      case "requeue": {
        const at = delivered.findIndex(
          ({ by, message }) => by === operation.by && message.content.toString() === operation.body,
        );
        const [found] = delivered.splice(at, 1);
        if (at < 0 || !found) throw new Error(`${operation.body} was not delivered by ${operation.by}`);
        if (operation.do === "ack") channel.ack(found.message);
        else channel.reject(found.message, operation.do === "requeue");
        await channel.flush();
        return;
      }
      case "get": {
        const message = await channel.get(this.#full(operation.queue));
        if (message) delivered.push({ by: "get", message });
        this.#note(`${stream} gets`, message ? this.#describe(message) : "nothing");
        return;
      }
      case "purge":
        this.#note(`${stream} purges`, String(await channel.purgeQueue(this.#full(operation.queue))));
        return;
    }
  }

  /** Ends every connection and deletes nothing: queues and exchanges have names of their own. */
  async leave(): Promise<void> {
    for (const connection of this.#connections.values()) await connection.close().catch(() => {});
  }

  #lost(connection: number): void {
    this.#connections.delete(connection);
    for (const [number, open] of this.channels)
      if (open.connection === connection) this.channels.delete(number);
  }

  async #end(): Promise<void> {
    // One after the other, or chance decides in which order they give back what they hold.
    for (const [number, { channel }] of [...this.channels].sort(([a], [b]) => a - b)) {
      this.channels.delete(number);
      await channel.close();
    }
    for (const connection of [...this.#connections.values()]) await connection.close();
    const connection = await this.#connect(this.#url, { closed() {}, blocked() {}, unblocked() {} });
    for (const queue of [...this.queues].sort()) {
      const channel = await connection.openChannel();
      try {
        for (;;) {
          const message = await channel.get(this.#full(queue));
          if (!message) break;
          this.#note(`left in ${queue}`, this.#describe(message));
          channel.ack(message);
        }
        this.#note(`left in ${queue}`, "no more");
        await channel.close();
      } catch (error) {
        this.#note(`left in ${queue}`, /[A-Z]+_[A-Z]+/.exec(String(error))?.[0] ?? String(error));
      }
    }
    await connection.close();
  }
}

/** A script by chance, as the model performs it. */
export async function writeScript(seed: number, length = 30): Promise<Script> {
  const clock = new VirtualClock();
  const chance = new Random(seed);
  const rabbit = new Rabbit({ clock, random: new Random(seed ^ 0x5eed), members: 1, heartbeatSeconds: 60 });
  const connect = rabbit.connector(() => {});
  const stage = new Stage(connect, rabbit.urls(0)[0] ?? "", "script", (connection) =>
    (connection as Link).reset("dropped"),
  );
  const operations: Operation[] = [];
  const seen: Seen[] = [];
  const perform = async (operation: Operation) => {
    let failed: unknown;
    // What RabbitMQ refuses closes the channel, which is seen.
    stage.apply(operation).catch((error: unknown) => {
      failed = error;
    });
    const takes = operation.do === "wait" ? WAIT_MS : operation.do === "end" ? 50 * STEP_MS : STEP_MS;
    await clock.runUntil(clock.now() + takes);
    if (failed instanceof TypeError) throw failed;
    operations.push(operation);
    seen.push(stage.seen);
  };
  const author = new Author(chance, stage);
  for (const operation of author.beginning()) await perform(operation);
  while (operations.length < length) {
    const operation = author.next();
    if (operation) await perform(operation);
  }
  if (author.timed) await perform({ do: "wait" });
  await perform({ do: "end" });
  return { seed, operations, seen };
}

/** Chooses what to do next among what makes sense. */
class Author {
  readonly #chance: Random;
  readonly #stage: Stage;
  readonly #timed: boolean;
  #bodies = 0;
  #consumers = 0;

  constructor(chance: Random, stage: Stage) {
    this.#chance = chance;
    this.#stage = stage;
    this.#timed = this.#sometimes(TIMED);
  }

  #pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.#chance.next() * from.length)] as T;
  }

  #sometimes(probability: number): boolean {
    return this.#chance.next() < probability;
  }

  get timed(): boolean {
    return this.#timed;
  }

  *beginning(): Generator<Operation> {
    for (let connection = 0; connection < CONNECTIONS; connection++) {
      yield { do: "connect", connection };
      for (let i = 0; i < CHANNELS_OF_A_CONNECTION; i++)
        yield { do: "open", connection, channel: connection * CHANNELS_OF_A_CONNECTION + i };
    }
    yield { do: "exchange", channel: 0, name: "other", type: "fanout" };
    yield { do: "exchange", channel: 0, name: "dead", type: this.#pick(["fanout", "topic"]) };
    yield {
      do: "exchange",
      channel: 0,
      name: "main",
      type: this.#pick(["topic", "direct"]),
      alternate: "other",
    };
    for (const name of QUEUES.slice(0, 2 + Math.floor(this.#chance.next() * 3))) {
      yield { do: "queue", channel: 0, name, options: this.#queueOptions(name) };
      yield this.#bind(0, name);
    }
  }

  /** A queue's, of those kinds and arguments that the topology has; the first two are where the dead go. */
  #queueOptions(name: string): Options.AssertQueue {
    const quorum = this.#sometimes(0.5);
    const lasts = name === "q0" || name === "q1";
    return {
      durable: true,
      ...(quorum || !this.#sometimes(0.3) ? {} : { exclusive: true }),
      ...(this.#timed && this.#sometimes(0.4) ? { messageTtl: TIME_MS } : {}),
      // A quorum queue looks only every few seconds whether it is used.
      ...(this.#timed && !lasts && !quorum && this.#sometimes(0.4) ? { expires: TIME_MS } : {}),
      ...(!lasts && this.#sometimes(0.7) ? { deadLetterExchange: "dead" } : {}),
      ...(this.#sometimes(0.3) ? { maxLength: 1 + Math.floor(this.#chance.next() * 3) } : {}),
      arguments: {
        "x-queue-type": quorum ? "quorum" : "classic",
        "x-overflow": "drop-head",
        ...(quorum ? { "x-delivery-limit": 1 + Math.floor(this.#chance.next() * 3) } : {}),
      },
    };
  }

  #bind(channel: number, queue: string): Operation {
    const exchange = this.#pick(
      queue === "q0" || queue === "q1" ? ["dead", "main", "other"] : ["main", "other"],
    );
    return { do: "bind", channel, queue, exchange, key: this.#pick(["k.a", "k.b", "k.*", "*.a"]) };
  }

  next(): Operation | undefined {
    const { channels, connected } = this.#stage;
    const lacking = Array.from({ length: CONNECTIONS }, (_, i) => i).find((i) => !connected.includes(i));
    if (lacking !== undefined && this.#sometimes(0.4)) return { do: "connect", connection: lacking };
    const closed = connected
      .flatMap((connection) => [2 * connection, 2 * connection + 1])
      .find((number) => !channels.has(number));
    if (closed !== undefined && this.#sometimes(0.5))
      return { do: "open", channel: closed, connection: Math.floor(closed / CHANNELS_OF_A_CONNECTION) };
    const channel = this.#pick([...channels.keys()]);
    const open = channels.get(channel);
    if (!open) return undefined;
    const queue = this.#pick([...this.#stage.queues]);
    const consumer = this.#pick([...open.tags.keys()]);
    // Which of several consumers gets a message, RabbitMQ does not promise.
    const isConsumed = [...channels.values()].some(({ consumed }) => consumed.has(queue));
    const delivery = this.#pick(open.delivered);
    switch (this.#pick(["publish", "publish", "publish", "consume", "answer", "answer", "answer", "other"])) {
      case "publish":
        return {
          do: "publish",
          channel,
          ...this.#pick([
            { exchange: "main", key: this.#pick(["k.a", "k.b", "l.a", "l.c"]) },
            { exchange: "", key: this.#pick([...QUEUES]) },
          ]),
          body: `m${this.#bodies++}`,
          mandatory: this.#sometimes(0.5),
          ...(this.#timed && this.#sometimes(0.4) ? { expiration: TIME_MS } : {}),
        };
      case "consume":
        if (isConsumed) return undefined;
        return {
          do: "consume",
          channel,
          queue: this.#sometimes(0.05) ? "missing" : queue,
          consumer: `k${this.#consumers++}`,
          prefetch: 1 + Math.floor(this.#chance.next() * 3),
          noAck: this.#sometimes(0.15),
        };
      case "answer":
        if (!delivery) return undefined;
        return {
          do: this.#pick(["ack", "reject", "requeue", "requeue"]),
          channel,
          by: delivery.by,
          body: delivery.message.content.toString(),
        };
    }
    switch (
      this.#pick(["get", "get", "purge", "cancel", "close", "drop", "wrong-ack", "redeclare", "wait", "bind"])
    ) {
      case "get":
        return { do: "get", channel, queue: this.#sometimes(0.05) ? "missing" : queue };
      case "purge":
        return { do: "purge", channel, queue };
      case "cancel":
        return consumer === undefined ? undefined : { do: "cancel", channel, consumer };
      case "close":
        return { do: "close", channel };
      case "drop":
        return { do: "drop", connection: open.connection };
      case "wrong-ack":
        return { do: "wrong-ack", channel };
      case "redeclare":
        return { do: "queue", channel, name: queue, options: this.#queueOptions(queue) };
      case "bind":
        return this.#bind(channel, queue);
      default:
        return this.#timed ? { do: "wait" } : undefined;
    }
  }
}
