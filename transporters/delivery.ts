import type { Message } from "./ports.ts";
import { waitedAtMost } from "./topology.ts";

/** The queue a request came from. */
export type Source = "targeted" | "pinned" | "shared" | "quarantine";

/** What a caller writes on every request, outside of its body: enough to judge it unread. */
export interface RequestHeaders {
  readonly action: string;
  /** Instance of the sender, whose clock `at` belongs to. */
  readonly by: string;
  /** Milliseconds on the sender's monotonic clock when this copy of the request was sent. */
  readonly at: number;
  /** Milliseconds from `at` to the deadline. */
  readonly timeout: number;
  /** Deliveries without an answer, before it went into quarantine. */
  readonly attempts: number;
}

export interface Delivery {
  readonly source: Source;
  /** Moleculer's context ID. */
  readonly id: string;
  /** Node ID of the caller. */
  readonly sender: string;
  readonly headers: RequestHeaders;
  /** How often this queue delivered it before and got no acknowledgement. */
  readonly unanswered: number;
  /** Whether it left the chosen node's queue at its deadline, rather than for another node to take it. */
  readonly late: boolean;
}

/** The request behind a message, or undefined if it was not written by this transporter. */
export function readDelivery(source: Source, { properties, fields }: Message): Delivery | undefined {
  const { messageId, appId, headers = {} } = properties;
  const { action, by, at, timeout, attempts = 0 } = headers;
  if (!isString(messageId) || !isString(appId) || !isString(action) || !isString(by)) return undefined;
  if (!isNumber(at) || !isNumber(timeout) || !isNumber(attempts)) return undefined;
  // Quorum queues count; a classic queue only knows "again", and sends nothing a second time without this flag.
  const counted = Number(headers["x-delivery-count"] ?? 0);
  const death = source === "shared" ? lastDeath(headers) : undefined;
  return {
    source,
    id: messageId,
    sender: appId,
    headers: { action, by, at, timeout, attempts },
    unanswered: Math.max(counted, fields.redelivered ? 1 : 0),
    late: death?.reason === "expired" && death.ownExpiryMs <= (waitedAtMost(death.queue) ?? 0),
  };
}

/** How a message was dead-lettered, last. */
export interface Death {
  /** `expired`, `maxlen`, `rejected`, `delivery_limit`. */
  readonly reason: string;
  readonly queue: string;
  /** The expiry that the message itself had; NaN if it had none. */
  readonly ownExpiryMs: number;
}

export function lastDeath(headers: Readonly<Record<string, unknown>> = {}): Death | undefined {
  const [death] = (headers["x-death"] ?? []) as readonly Record<string, unknown>[];
  return (
    death && {
      reason: String(death["reason"]),
      queue: String(death["queue"]),
      ownExpiryMs: Number(death["original-expiration"] ?? Number.NaN),
    }
  );
}

function isString(value: unknown): value is string {
  return typeof value === "string";
}

function isNumber(value: unknown): value is number {
  return Number.isFinite(value);
}
