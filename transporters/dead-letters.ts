import type { Channel, ChannelModel, ConsumeMessage, Message } from "amqplib";
import { ServingError } from "../lib/errors.ts";
import type { RequestEvent } from "./options.ts";
import type { Topology } from "./topology.ts";

/** What the end of a request needs from the transporter. */
export interface Undertaker {
  readonly topology: Topology;
  readonly observe: (event: RequestEvent, action: string) => void;
  /** Sends the caller of a request an error for an answer. */
  readonly answer: (sender: string, id: string, error: ServingError) => void;
}

/**
 * Buries one message of the DEAD queue: tells the caller what became of its request, and keeps what people should look
 * at. An expired request is only counted, its caller stopped waiting. Acknowledges last, so that a node that dies here
 * leaves the notice to another.
 */
export function bury(
  { topology, observe, answer }: Undertaker,
  channel: Channel,
  message: ConsumeMessage,
): void {
  const { messageId: id, replyTo: sender, type } = message.properties;
  const isRequest = typeof id === "string" && typeof sender === "string" && typeof type === "string";
  const action = isRequest ? type : "unknown";
  const reason = reasonOf(message);

  if (reason === "expired") {
    observe("expired", action);
  } else if (reason === "maxlen") {
    if (isRequest)
      answer(sender, id, new ServingError("QUEUE_FULL", `The queue of ${action} is full`, { action }));
  } else {
    observe("dead-lettered", action);
    if (isRequest) {
      const text = `Every node that tried this request of ${action} died`;
      answer(sender, id, new ServingError("POISON_REQUEST", text, { action }));
    }
    const { name } = topology.deadLetters();
    const { headers = {}, ...properties } = message.properties;
    channel.sendToQueue(name, message.content, {
      messageId: properties.messageId,
      replyTo: properties.replyTo,
      type: properties.type,
      headers: { reason, attempts: headers["attempts"] ?? 0 },
      timestamp: Math.floor(Date.now() / 1000),
      persistent: true,
    });
  }
  channel.ack(message);
}

/** Why RabbitMQ dead-lettered a message, last: `expired`, `maxlen`, `rejected`, `delivery_limit`. */
function reasonOf(message: Message): string {
  return message.properties.headers?.["x-death"]?.[0]?.reason ?? "unknown";
}

/** One message of the dead-letter queue. */
export interface DeadLetter {
  /** Moleculer's context ID; absent for what was no request. */
  readonly id?: string;
  readonly action?: string;
  /** Node ID of the caller. */
  readonly sender?: string;
  /** Why it is here: `rejected` (three attempts, or unreadable) or `delivery_limit`. */
  readonly reason: string;
  readonly at: Date;
  /** Serialized size. */
  readonly bytes: number;
}

/** The part of the transporter that dead letters are read through. */
export interface DeadLetterStore {
  readonly topology: Topology;
  readonly connection: ChannelModel | null;
}

/**
 * The oldest dead letters, at most `limit`. They stay in the queue: they are fetched unacknowledged over a channel of
 * their own, and its closing puts them back where they were.
 * @throws ServingError MODEL_UNAVAILABLE while RabbitMQ is away
 */
export function listDeadLetters(store: DeadLetterStore, limit = 20): Promise<DeadLetter[]> {
  return withChannel(store, async (channel, queue) => {
    const letters: DeadLetter[] = [];
    while (letters.length < limit) {
      const message = await channel.get(queue);
      if (message === false) break;
      const { messageId, type, replyTo, headers, timestamp } = message.properties;
      letters.push({
        ...(messageId === undefined ? {} : { id: messageId }),
        ...(type === undefined ? {} : { action: type }),
        ...(replyTo === undefined ? {} : { sender: replyTo }),
        reason: String(headers?.["reason"] ?? "unknown"),
        at: new Date(Number(timestamp ?? 0) * 1000),
        bytes: message.content.length,
      });
    }
    return letters;
  });
}

/**
 * Deletes all dead letters.
 * @returns how many
 * @throws ServingError MODEL_UNAVAILABLE while RabbitMQ is away
 */
export function purgeDeadLetters(store: DeadLetterStore): Promise<number> {
  return withChannel(store, async (channel, queue) => (await channel.purgeQueue(queue)).messageCount);
}

async function withChannel<T>(
  { connection, topology }: DeadLetterStore,
  use: (channel: Channel, queue: string) => Promise<T>,
): Promise<T> {
  if (!connection) throw new ServingError("MODEL_UNAVAILABLE", "Not connected to RabbitMQ");
  const channel = await connection.createChannel();
  // Its death rejects the call that caused it; without a listener it would end the process as well.
  channel.on("error", () => {});
  const { name, options } = topology.deadLetters();
  await channel.assertQueue(name, options);
  const result = await use(channel, name);
  await channel.close();
  return result;
}
