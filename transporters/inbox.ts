import type { Channel, Message } from "./ports.ts";
import type { Seat, Topology } from "./topology.ts";

/** Who takes what comes into an inbox. */
export interface InboxUser {
  readonly instanceID: string;
  /** Kinds of packets for all nodes that this one wants. */
  readonly hears: readonly string[];
  /** @param message null: RabbitMQ has deleted the inbox */
  receive(message: Message | null): void;
}

/**
 * Declares what all nodes share, and the inbox of one connection. What comes into an inbox counts as acknowledged: if
 * the connection is lost, the inbox is as well, and whoever waits for an answer asks again.
 */
export async function openInbox(
  channel: Channel,
  topology: Topology,
  seat: Seat,
  { instanceID, hears, receive }: InboxUser,
): Promise<void> {
  const { sharedExchange, targetedExchange, deadExchange, nodeExchange, allExchange } = topology;
  await channel.assertExchange(sharedExchange, "topic", {});
  await channel.assertExchange(targetedExchange, "topic", { alternateExchange: sharedExchange });
  await channel.assertExchange(deadExchange, "fanout", {});
  await channel.assertExchange(nodeExchange, "direct", {});
  await channel.assertExchange(allExchange, "direct", {});
  const kept = topology.deadLetters();
  await channel.assertQueue(kept.name, kept.options);
  const inbox = topology.inbox(seat);
  await channel.assertQueue(inbox.name, inbox.options);
  for (const key of [seat.nodeID, instanceID]) await channel.bindQueue(inbox.name, nodeExchange, key);
  for (const cmd of hears) await channel.bindQueue(inbox.name, allExchange, cmd);
  await channel.consume(inbox.name, receive, { noAck: true });
}
