import type { Socket } from "node:net";
import { type Channel as AmqpChannel, type ChannelModel, connect } from "amqplib";
import type { Settings } from "./options.ts";
import type { Channel, ChannelEvents, Connect, Connection, ConnectionEvents, Message } from "./ports.ts";

/** Milliseconds for the TCP, TLS and AMQP handshakes together. */
const HANDSHAKE_TIMEOUT_MS = 5000;
/** Bytes a socket takes before amqplib waits for it: a message with its image, and some more, go in one write. */
const WRITE_AHEAD_BYTES = 1_048_576;

/**
 * Opens real connections, named after the node, without Nagle's delay (40 ms on every small message).
 * @param name shown in RabbitMQ's list of connections
 */
export function connectWith(
  name: string,
  { heartbeatSeconds, socketOptions }: Pick<Settings, "heartbeatSeconds" | "socketOptions">,
): Connect {
  return async (url, events) => {
    const address = new URL(url);
    if (!address.searchParams.has("heartbeat"))
      address.searchParams.set("heartbeat", String(heartbeatSeconds));
    const connection = await connect(address.href, {
      noDelay: true,
      keepAlive: true,
      timeout: HANDSHAKE_TIMEOUT_MS,
      writableHighWaterMark: WRITE_AHEAD_BYTES,
      clientProperties: { connection_name: name },
      ...socketOptions,
    });
    // Not in amqplib's types.
    writeOnce((connection.connection as unknown as { readonly stream: Socket }).stream);
    return new AmqplibConnection(connection, events);
  };
}

/** A connection of amqplib's. */
export class AmqplibConnection implements Connection {
  readonly model: ChannelModel;

  constructor(model: ChannelModel, events: ConnectionEvents) {
    this.model = model;
    // Each error is followed by a close, which has the reason.
    model.on("error", () => {});
    model.once("close", (error?: Error) => events.closed(error?.message ?? "closed"));
    model.on("blocked", (reason: string) => events.blocked(reason));
    model.on("unblocked", () => events.unblocked());
  }

  async openChannel(events: ChannelEvents = {}): Promise<Channel> {
    return new AmqplibChannel(await this.model.createChannel(), events);
  }

  async close(): Promise<void> {
    await this.model.close();
  }
}

class AmqplibChannel implements Channel {
  readonly #channel: AmqpChannel;

  constructor(channel: AmqpChannel, { returned, drained, closed }: ChannelEvents) {
    this.#channel = channel;
    let reason = "closed";
    channel.on("error", (error: Error) => {
      reason = error.message;
    });
    channel.once("close", () => closed?.(`channel: ${reason}`));
    channel.on("return", (message) => returned?.(message as Message));
    channel.on("drain", () => drained?.());
  }

  async assertExchange(...args: Parameters<Channel["assertExchange"]>): Promise<void> {
    await this.#channel.assertExchange(...args);
  }

  async assertQueue(...args: Parameters<Channel["assertQueue"]>): Promise<void> {
    await this.#channel.assertQueue(...args);
  }

  async bindQueue(...args: Parameters<Channel["bindQueue"]>): Promise<void> {
    await this.#channel.bindQueue(...args);
  }

  /**
   * RabbitMQ gives a consumer the prefetch its channel has at that moment, so the two commands are sent in one go, with
   * nothing between them.
   */
  async consume(...[queue, onMessage, { prefetch = 0, noAck = false }]: Parameters<Channel["consume"]>) {
    const [, { consumerTag }] = await Promise.all([
      this.#channel.prefetch(prefetch),
      this.#channel.consume(queue, onMessage as Parameters<AmqpChannel["consume"]>[1], { noAck }),
    ]);
    return consumerTag;
  }

  async cancel(consumerTag: string): Promise<void> {
    await this.#channel.cancel(consumerTag);
  }

  publish(...args: Parameters<Channel["publish"]>): boolean {
    return unlessClosed(() => this.#channel.publish(...args), true);
  }

  ack(message: Message): void {
    unlessClosed(() => this.#channel.ack(message as Parameters<AmqpChannel["ack"]>[0]), undefined);
  }

  reject(message: Message, requeue: boolean): void {
    const nack = () => this.#channel.nack(message as Parameters<AmqpChannel["nack"]>[0], false, requeue);
    unlessClosed(nack, undefined);
  }

  async get(queue: string): Promise<Message | undefined> {
    const message = await this.#channel.get(queue).catch((reason: unknown) => {
      throw asError(reason);
    });
    return message === false ? undefined : (message as Message);
  }

  async purgeQueue(queue: string): Promise<number> {
    return (await this.#channel.purgeQueue(queue)).messageCount;
  }

  /** Any command that RabbitMQ answers; this one changes nothing, as each consumer brings its own prefetch. */
  async flush(): Promise<void> {
    await this.#channel.prefetch(0);
  }

  close(): Promise<void> {
    return this.#channel.close() as unknown as Promise<void>;
  }
}

/** Only this command of amqplib's rejects with the frame by which RabbitMQ closed the channel. */
function asError(reason: unknown): Error {
  if (reason instanceof Error) return reason;
  const { fields } = reason as { readonly fields?: { readonly replyText?: string } };
  return new Error(fields?.replyText ?? "The channel was closed");
}

/** amqplib throws where a channel is closed, also when we have not been told yet. */
function unlessClosed<T>(command: () => T, otherwise: T): T {
  try {
    return command();
  } catch (error) {
    if (error instanceof Error && error.name === "IllegalOperationError") return otherwise;
    throw error;
  }
}

/**
 * Gathers what is written at once into one system call. amqplib writes frame by frame, and each write wakes RabbitMQ:
 * three for an image, and three more for its answer and two acknowledgements.
 */
function writeOnce(socket: Socket): void {
  const write = socket.write;
  socket.write = ((...args: Parameters<typeof write>) => {
    if (socket.writableCorked === 0) {
      socket.cork();
      process.nextTick(() => socket.uncork());
    }
    return write.apply(socket, args);
  }) as typeof write;
}
