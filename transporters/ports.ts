import type { Options } from "amqplib";

/**
 * What this folder needs from RabbitMQ and from time, and no more. The real thing is `amqplib.ts`; a test or a simulator
 * brings its own. Everything else here is written against these.
 */

export type { Clock } from "../lib/request/clock.ts";

/** A number from 0 up to but not including 1. */
export type Random = () => number;

/** A message as RabbitMQ delivers or returns it. */
export interface Message {
  readonly content: Buffer;
  readonly fields: {
    /** What `ack` and `reject` name it by, on the channel it came by. */
    readonly deliveryTag: number;
    /** Whether this queue delivered it before and got no answer. */
    readonly redelivered: boolean;
  };
  readonly properties: {
    readonly messageId?: string;
    readonly type?: string;
    readonly appId?: string;
    /** Seconds since 1970. */
    readonly timestamp?: number;
    readonly headers?: Readonly<Record<string, unknown>> | undefined;
  };
}

export interface ConsumeOptions {
  /** Deliveries it holds unanswered; RabbitMQ sends no more until one is acknowledged or rejected. */
  readonly prefetch?: number;
  /** Deliveries count as acknowledged as soon as they are sent. */
  readonly noAck?: boolean;
}

/**
 * A channel: commands run in order. Once it is closed those with a promise reject, and the others do nothing: what they
 * tell would be lost with it anyway.
 */
export interface Channel {
  assertExchange(
    name: string,
    type: "topic" | "direct" | "fanout",
    options: Options.AssertExchange,
  ): Promise<void>;
  assertQueue(name: string, options: Options.AssertQueue): Promise<void>;
  bindQueue(queue: string, exchange: string, key: string): Promise<void>;
  /**
   * @param onMessage gets null when RabbitMQ ends the consumer by itself: its queue is gone
   * @returns the consumer's tag
   */
  consume(
    queue: string,
    onMessage: (message: Message | null) => void,
    options: ConsumeOptions,
  ): Promise<string>;
  /** Deliveries that are on their way still come; they stay this channel's until they are answered. */
  cancel(consumerTag: string): Promise<void>;
  /** @returns false if what is written has to wait: `drained` says when it is worth writing more */
  publish(exchange: string, key: string, content: Buffer, options: Options.Publish): boolean;
  ack(message: Message): void;
  /** Without `requeue` a message goes to its queue's dead-letter exchange. */
  reject(message: Message, requeue: boolean): void;
  /** Fetches one message, if there is one; it stays this channel's until it is answered. */
  get(queue: string): Promise<Message | undefined>;
  /** @returns how many messages it deleted */
  purgeQueue(queue: string): Promise<number>;
  /** Resolves when RabbitMQ has read all that was written before. */
  flush(): Promise<void>;
  close(): Promise<void>;
}

export interface ChannelEvents {
  /** A mandatory message that no queue takes comes back. */
  returned?(message: Message): void;
  /** After `publish` answered false: there is room again. */
  drained?(): void;
  /** It is closed, by whomever, its connection's end included. */
  closed?(reason: string): void;
}

export interface Connection {
  openChannel(events?: ChannelEvents): Promise<Channel>;
  close(): Promise<void>;
}

export interface ConnectionEvents {
  /** It is closed, by whomever. */
  closed(reason: string): void;
  /** RabbitMQ takes no more messages on it, until `unblocked`: it is short of memory or disk. */
  blocked(reason: string): void;
  unblocked(): void;
}

/** Opens a connection to one of RabbitMQ's members. */
export type Connect = (url: string, events: ConnectionEvents) => Promise<Connection>;
