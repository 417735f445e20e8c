import type { Socket } from "node:net";
import { type ChannelModel, connect } from "amqplib";
import type { Settings } from "./options.ts";

/** Milliseconds for the TCP, TLS and AMQP handshakes together. */
const HANDSHAKE_TIMEOUT_MS = 5000;
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 1000;
/** Bytes a socket takes before amqplib waits for it: a message with its image, and some more, go in one write. */
const WRITE_AHEAD_BYTES = 1_048_576;

/** Opens a connection that is named after the node, without Nagle's delay (40 ms on every small message). */
export async function openConnection(url: string, nodeID: string, settings: Settings): Promise<ChannelModel> {
  const address = new URL(url);
  if (!address.searchParams.has("heartbeat")) {
    address.searchParams.set("heartbeat", String(settings.heartbeatSeconds));
  }
  const connection = await connect(address.href, {
    noDelay: true,
    keepAlive: true,
    timeout: HANDSHAKE_TIMEOUT_MS,
    writableHighWaterMark: WRITE_AHEAD_BYTES,
    clientProperties: { connection_name: nodeID },
    ...settings.socketOptions,
  });
  // Not in amqplib's types.
  writeOnce((connection.connection as unknown as { readonly stream: Socket }).stream);
  return connection;
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
