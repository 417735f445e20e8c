import { ERRORS, toWire, type WireError } from "../errors.ts";
import type { ImageAnswer } from "../types.ts";

/** What goes back to the client. */
export interface Answer {
  readonly status: number;
  /** Sent as JSON; a string as it is. */
  readonly body: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** The answer to a failed request, in the one shape of an error. Overload also says when to come back. */
export function errorAnswer(error: unknown, requestId: string): Answer {
  return wireAnswer(toWire(error, requestId));
}

function wireAnswer(error: WireError): Answer {
  const { status } = ERRORS[error.code];
  // Seconds: queues here hold less than a second of work.
  const headers = status === 429 || status === 503 ? { "retry-after": "1" } : {};
  return { status, body: { error }, headers };
}

/** Where a request's time went, milliseconds. */
export interface RequestTiming {
  /** Reading and parsing the body. */
  readonly parseMs: number;
  /** From the request's head to its answer. */
  readonly totalMs: number;
}

/**
 * The answer to a classification: flat for one image, `items` for several. What failed is told where it failed;
 * only when no model has an answer for any image does the request itself fail, with {@link mostTelling} error.
 *
 * @param items at least one
 */
export function classifyAnswer(
  items: readonly ImageAnswer[],
  requestId: string,
  timing: RequestTiming,
): Answer {
  const failures = items.map(failuresOf);
  const failed = failures.every((errors) => errors.length > 0) ? mostTelling(failures.flat()) : undefined;
  const answer = failed
    ? wireAnswer({ ...failed, requestId })
    : { status: 200, body: resultBody(items, requestId, timing) };
  return { ...answer, headers: { ...answer.headers, "server-timing": serverTiming(items, timing) } };
}

/**
 * Of several errors the one a client can act on: one that may pass if the request is sent again, before one that
 * will not; among these the lowest status, that is the client's own mistake before ours, and ours before a time-out.
 */
export function mostTelling(errors: readonly WireError[]): WireError | undefined {
  return errors.toSorted(
    (a, b) => Number(b.retryable) - Number(a.retryable) || ERRORS[a.code].status - ERRORS[b.code].status,
  )[0];
}

/** Why an image has no result at all; empty if it has one. */
function failuresOf(item: ImageAnswer): readonly WireError[] {
  if ("error" in item) return [item.error];
  const results = Object.values(item.results);
  const errors = results.flatMap((result) => ("error" in result ? [result.error] : []));
  return errors.length === results.length ? errors : [];
}

function resultBody(items: readonly ImageAnswer[], requestId: string, { totalMs }: RequestTiming): unknown {
  const [only, ...more] = items;
  if (more.length > 0) return { requestId, items, timing: { totalMs: round(totalMs) } };
  const timing = only && "timing" in only ? only.timing : {};
  return { requestId, ...only, timing: { ...timing, totalMs: round(totalMs) } };
}

/**
 * The `Server-Timing` header (https://www.w3.org/TR/server-timing/): images and models are served in parallel, so each
 * phase is that of the slowest.
 */
function serverTiming(items: readonly ImageAnswer[], { parseMs, totalMs }: RequestTiming): string {
  const read = items.flatMap((item) => ("error" in item ? [] : [item]));
  const results = read
    .flatMap((item) => Object.values(item.results))
    .flatMap((result) => ("error" in result ? [] : [result]));
  const phases = {
    parse: parseMs,
    decode: Math.max(0, ...read.map((item) => item.timing.decodeMs)),
    queue: Math.max(0, ...results.map((result) => result.timing.queueMs)),
    compute: Math.max(0, ...results.map((result) => result.timing.computeMs)),
    total: totalMs,
  };
  return Object.entries(phases)
    .map(([phase, ms]) => `${phase};dur=${round(ms)}`)
    .join(", ");
}

function round(ms: number): number {
  return Math.round(ms * 100) / 100;
}
