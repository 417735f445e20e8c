import { ERRORS, toWire, type WireError } from "../errors.ts";
import type { ItemAnswer, ModelAnswer } from "../types.ts";

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

/** What an answer is told besides its items. */
export interface About {
  /** What one input is called: the key under which what is known of it is shown. */
  readonly noun: string;
  readonly requestId: string;
  readonly timing: RequestTiming;
}

/**
 * The answer to a request for predictions: flat for one input, `items` for several. What failed is told where it failed;
 * only when no model has an answer for any input does the request itself fail, with {@link mostTelling} error.
 *
 * @param items at least one
 */
export function resultAnswer(items: readonly ItemAnswer[], about: About): Answer {
  const failures = items.map(failuresOf);
  const failed = failures.every((errors) => errors.length > 0) ? mostTelling(failures.flat()) : undefined;
  const answer = failed
    ? wireAnswer({ ...failed, requestId: about.requestId })
    : { status: 200, body: resultBody(items, about) };
  return { ...answer, headers: { ...answer.headers, "server-timing": serverTiming(items, about.timing) } };
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

/** Why an input has no result at all; empty if it has one. */
function failuresOf(item: ItemAnswer): readonly WireError[] {
  if ("error" in item) return [item.error];
  const results = Object.values(item.results);
  const errors = results.flatMap((result) => ("error" in result ? [result.error] : []));
  return errors.length === results.length ? errors : [];
}

function resultBody(items: readonly ItemAnswer[], { noun, requestId, timing }: About): unknown {
  const [only, ...more] = items.map((item) => shownItem(item, noun));
  const totalMs = round(timing.totalMs);
  if (more.length > 0) return { requestId, items: [only, ...more], timing: { totalMs } };
  return { requestId, ...only, timing: { ...only?.timing, totalMs } };
}

/** An item as clients see it: times in milliseconds with two decimals. */
function shownItem(item: ItemAnswer, noun: string): Record<string, unknown> & { readonly timing?: object } {
  if ("error" in item) return { ...item };
  const { info, results, timing } = item;
  const shown = Object.entries(results).map(([name, result]) => [name, shownResult(result)] as const);
  return {
    [noun]: info,
    results: Object.fromEntries(shown),
    timing: { decodeMs: round(timing.decodeMs) },
  };
}

function shownResult(result: ModelAnswer): ModelAnswer {
  if ("error" in result) return result;
  const { queueMs, computeMs } = result.timing;
  return { ...result, timing: { queueMs: round(queueMs), computeMs: round(computeMs) } };
}

/**
 * The `Server-Timing` header (https://www.w3.org/TR/server-timing/): inputs and models are served in parallel, so each
 * phase is that of the slowest.
 */
function serverTiming(items: readonly ItemAnswer[], { parseMs, totalMs }: RequestTiming): string {
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
