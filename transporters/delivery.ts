import type { Message } from "./ports.ts";
import { waitedAtMost } from "./topology.ts";

/** Times a request is delivered to a node, at most, before its caller is told POISON_REQUEST. */
export const MAX_ATTEMPTS = 3;

/** The queue a request came from. */
export type Source = "targeted" | "pinned" | "shared" | "quarantine";

/** What a caller writes on every request, outside of its body: enough to judge it unread. */
export interface RequestHeaders {
  readonly action: string;
  /** Instance of the sender, whose clock `at` belongs to. */
  readonly by: string;
  /** Milliseconds on the sender's monotonic clock when the request was made. */
  readonly at: number;
  /** Milliseconds from `at` to the deadline. */
  readonly timeout: number;
  /** Attempts before it went into quarantine. */
  readonly attempts?: number;
}

export interface Delivery {
  readonly source: Source;
  /** Moleculer's context ID. */
  readonly id: string;
  /** Node ID of the caller. */
  readonly sender: string;
  /** Queue of the caller that the answer goes to. */
  readonly replyTo: string;
  readonly headers: RequestHeaders;
  /** Deliveries that may have been made before this one. */
  readonly priorAttempts: number;
  /** Whether this queue delivered it before and got no acknowledgement. */
  readonly redelivered: boolean;
  /** Whether it left the chosen node's queue at its deadline, rather than for another node to take it. */
  readonly late: boolean;
}

/** The request behind a message, or undefined if it was not written by this transporter. */
export function readDelivery(source: Source, { properties, fields }: Message): Delivery | undefined {
  const { messageId, replyTo, appId, headers = {} } = properties;
  const { action, by, at, timeout, attempts = 0 } = headers;
  if (!isString(messageId) || !isString(replyTo) || !isString(appId) || !isString(action) || !isString(by))
    return undefined;
  if (!isNumber(at) || !isNumber(timeout) || !isNumber(attempts)) return undefined;
  // Quorum queues count; a classic queue only knows "again", and sends nothing a second time without this flag.
  const counted = Number(headers["x-delivery-count"] ?? 0);
  const here = Math.max(counted, fields.redelivered ? 1 : 0);
  // A classic queue forgets on dead-lettering whether a node had the message when it died: assume the worst.
  const death = source === "shared" ? lastDeath(headers) : undefined;
  // A connection that was closed counts like a death, and an operator may close them all: not without one try alone.
  const before = death ? 1 : Math.min(attempts, MAX_ATTEMPTS - 1);
  return {
    source,
    id: messageId,
    sender: appId,
    replyTo,
    headers: { action, by, at, timeout },
    priorAttempts: before + here,
    redelivered: here > 0,
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

/** - `run`: as it came. - `alone`: as a suspect. - `quarantine`: not now, move it. - `dead`: give up. */
export type Verdict = "run" | "alone" | "quarantine" | "dead";

/**
 * A delivery that was not acknowledged ended with its node, and perhaps ended its node. It and everything else that
 * node held become suspects: they go through the quarantine queue, where a node has one of them at a time, so that
 * only the guilty one dies again. The first death costs two attempts at most (chosen node, shared queue), the third
 * is in quarantine; there is no fourth.
 */
export function judge({ source, redelivered, priorAttempts }: Delivery): Verdict {
  if (source === "pinned") return redelivered ? "dead" : "run";
  if (source === "quarantine") return priorAttempts >= MAX_ATTEMPTS ? "dead" : "alone";
  return redelivered ? "quarantine" : "run";
}
