import { ServingError } from "../lib/errors.ts";
import { lastDeath } from "./delivery.ts";
import type { RequestEvent } from "./options.ts";
import type { Channel, Connection, Message } from "./ports.ts";
import type { Topology } from "./topology.ts";

/** What the end of a request needs from around it. */
export interface Discarding {
  readonly topology: Topology;
  /** Milliseconds a dead letter is kept. */
  readonly keepMs: number;
  readonly observe: (event: RequestEvent, action: string) => void;
  /** Sends the caller of a request an error for an answer. */
  readonly refuse: (sender: string, id: string, error: ServingError) => void;
}

/**
 * Takes one message of the DEAD queue: tells the caller what became of its request, and keeps what people should look
 * at. An expired request is only counted, its caller stopped waiting. Acknowledges last, so that a node that dies here
 * leaves the message to another.
 */
export function discard(
  { topology, keepMs, observe, refuse }: Discarding,
  channel: Channel,
  message: Message,
): void {
  const { messageId: id, appId: sender, headers } = message.properties;
  const named = headers?.["action"];
  const action = typeof named === "string" ? named : "unknown";
  const fail = (error: ServingError) => {
    if (id !== undefined && sender !== undefined) refuse(sender, id, error);
  };
  const reason = lastDeath(headers)?.reason ?? "unknown";

  if (reason === "expired") {
    observe("expired", action);
  } else if (reason === "maxlen") {
    fail(new ServingError("QUEUE_FULL", `The queue of ${action} is full`, { action }));
  } else {
    observe("dead-lettered", action);
    fail(whyDead(action, reason));
    keepLetter(topology, keepMs, channel, message, reason);
  }
  channel.ack(message);
}

/** No verdict: none of these was alone in a process that died. */
function whyDead(action: string, reason: string): ServingError {
  if (reason !== "delivery_limit")
    return new ServingError("INTERNAL", `No node could read this request of ${action}`, { action });
  const text = `The nodes with ${action} died or lost their connections too often`;
  return new ServingError("MODEL_UNAVAILABLE", text, { action });
}

/** Puts a message where people look. @param keepMs how long it stays there */
export function keepLetter(
  topology: Topology,
  keepMs: number,
  channel: Channel,
  { content, properties }: Message,
  reason: string,
): void {
  const { messageId, appId, headers = {} } = properties;
  channel.publish("", topology.deadLetters().name, content, {
    ...(messageId === undefined ? {} : { messageId }),
    ...(appId === undefined ? {} : { appId }),
    headers: { action: headers["action"], reason, attempts: headers["attempts"] ?? 0 },
    expiration: keepMs,
    timestamp: Math.floor(Date.now() / 1000),
    persistent: true,
  });
}

/** One message of the dead-letter queue. */
export interface DeadLetter {
  /** Moleculer's context ID; absent for what was no request. */
  readonly id?: string;
  readonly action?: string;
  /** Node ID of the caller. */
  readonly sender?: string;
  /** Why it is here: `poison`, `rejected` (no node could read it) or `delivery_limit`. */
  readonly reason: string;
  readonly at: Date;
  /** Serialized size. */
  readonly bytes: number;
}

/** The part of the transporter that dead letters are read through. */
export interface DeadLetterStore {
  readonly topology: Topology;
  readonly connection: Connection | undefined;
}

/**
 * The oldest dead letters, at most `limit`. They stay in the queue: they are fetched unacknowledged over a channel of
 * their own, and its closing puts them back.
 * @throws ServingError MODEL_UNAVAILABLE while RabbitMQ is away
 */
export function listDeadLetters(store: DeadLetterStore, limit = 20): Promise<DeadLetter[]> {
  return withChannel(store, async (channel, queue) => {
    const letters: DeadLetter[] = [];
    while (letters.length < limit) {
      const message = await channel.get(queue);
      if (!message) break;
      const { messageId, appId, headers = {}, timestamp } = message.properties;
      const action = headers["action"];
      letters.push({
        ...(messageId === undefined ? {} : { id: messageId }),
        ...(typeof action === "string" ? { action } : {}),
        ...(appId === undefined ? {} : { sender: appId }),
        reason: String(headers["reason"] ?? "unknown"),
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
  return withChannel(store, (channel, queue) => channel.purgeQueue(queue));
}

async function withChannel<T>(
  { connection, topology }: DeadLetterStore,
  use: (channel: Channel, queue: string) => Promise<T>,
): Promise<T> {
  if (!connection) throw new ServingError("MODEL_UNAVAILABLE", "Not connected to RabbitMQ");
  const channel = await connection.openChannel();
  try {
    const { name, options } = topology.deadLetters();
    await channel.assertQueue(name, options);
    return await use(channel, name);
  } finally {
    // One that RabbitMQ closed has rejected the command that caused it.
    await channel.close().catch(() => {});
  }
}
