import { type ChannelModel, connect } from "amqplib";
import type { Settings } from "./options.ts";

/** Milliseconds for the TCP, TLS and AMQP handshakes together. */
const HANDSHAKE_TIMEOUT_MS = 5000;
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 1000;

/** Opens a connection that is named after the node, without Nagle's delay (40 ms on every small message). */
export function openConnection(url: string, nodeID: string, settings: Settings): Promise<ChannelModel> {
  const address = new URL(url);
  if (!address.searchParams.has("heartbeat")) {
    address.searchParams.set("heartbeat", String(settings.heartbeatSeconds));
  }
  return connect(address.href, {
    noDelay: true,
    keepAlive: true,
    timeout: HANDSHAKE_TIMEOUT_MS,
    clientProperties: { connection_name: nodeID },
    ...settings.socketOptions,
  });
}

/** Milliseconds before attempt number `attempt` (0, 1, …): doubling from 100 to 1000, the upper half of it by chance. */
export function retryDelay(attempt: number, random: () => number = Math.random): number {
  return Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** attempt) * (0.5 + random() / 2);
}

/** Whether RabbitMQ knows us and says no: wrong credentials, or a virtual host that is not ours. */
export function isRefusal(error: unknown): boolean {
  return (
    error instanceof Error && /Handshake terminated.*\b403\b|ACCESS_REFUSED|NOT_ALLOWED/.test(error.message)
  );
}

/** Whether a queue or exchange exists with other arguments, as an older topology declared it. */
export function isMismatch(error: unknown): boolean {
  return error instanceof Error && (error as { code?: unknown }).code === 406;
}
