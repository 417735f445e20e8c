import type { Context } from "moleculer";
import { CancelledError, DeadlineExceededError } from "../errors.ts";
import { type Clock, systemClock } from "./clock.ts";

/**
 * What every step of a request has to heed, set once where the request enters a process and handed down whole.
 */
export interface Scope {
  /** When the answer is worthless, on `clock`; Infinity: never. */
  readonly deadline: number;
  /** Aborts when the caller gave up; its reason is the error to answer with. */
  readonly signal: AbortSignal;
  readonly clock: Clock;
  /** For logs and errors. */
  readonly requestId: string;
}

/** Never aborts: for who cannot be cancelled. */
const NEVER = new AbortController().signal;

/** A scope for work that nobody waits for with a deadline, or with parts of it. */
export function createScope(parts: Partial<Scope> = {}): Scope {
  return {
    deadline: Number.POSITIVE_INFINITY,
    signal: NEVER,
    clock: systemClock,
    requestId: "",
    ...parts,
  };
}

/** The scope of an action's context, as the middleware `Scopes` has set it; without it, one with the deadline alone. */
export function scopeOf(ctx: Context): Scope {
  const { scope } = ctx.locals as { readonly scope?: Scope };
  return scope ?? openScope(ctx, NEVER);
}

/**
 * The scope of a request that has just come in.
 *
 * The deadline rides as Moleculer's `timeout`: the time left when a call is sent, and so the same on nodes whose
 * clocks differ. Moleculer counts it down on the node where a handler runs.
 */
export function openScope(ctx: Context, signal: AbortSignal): Scope {
  return createScope({ deadline: deadlineOf(ctx), signal, requestId: ctx.requestID ?? "" });
}

function deadlineOf(ctx: Context): number {
  const { timeout } = ctx.options;
  if (!timeout || timeout <= 0) return Number.POSITIVE_INFINITY;
  const { startHrTime } = ctx as { startHrTime?: [number, number] };
  if (!startHrTime) return performance.now() + timeout;
  const [seconds, nanoseconds] = process.hrtime(startHrTime);
  return performance.now() + timeout - (seconds * 1e3 + nanoseconds / 1e6);
}

/** Milliseconds left; not above 0 once the deadline has passed. */
export function timeLeft({ deadline, clock }: Pick<Scope, "deadline" | "clock">): number {
  return deadline - clock.now();
}

/** Why work must not begin any more; undefined: it may. */
export function whyOver(scope: Scope, stage: string): Error | undefined {
  if (scope.signal.aborted) return reasonOf(scope.signal);
  return timeLeft(scope) <= 0 ? new DeadlineExceededError(stage) : undefined;
}

/**
 * `work`, unless the scope is over first: then what comes of it is ignored.
 *
 * @param stage what was going on, for the error
 * @throws DeadlineExceededError, or the signal's reason
 */
export async function within<T>(scope: Scope, stage: string, work: () => Promise<T>): Promise<T> {
  const over = whyOver(scope, stage);
  if (over) throw over;
  const { signal, clock, deadline } = scope;
  const { promise: ended, reject } = Promise.withResolvers<never>();
  // It may come when nobody listens any more.
  ended.catch(() => {});
  const cancel = () => reject(reasonOf(signal));
  let timer: unknown;
  // A timer may come early.
  const watch = () => {
    const left = timeLeft(scope);
    if (left <= 0) reject(new DeadlineExceededError(stage));
    else timer = clock.setTimeout(watch, left);
  };
  if (deadline < Number.POSITIVE_INFINITY) watch();
  signal.addEventListener("abort", cancel, { once: true });
  try {
    return await Promise.race([work(), ended]);
  } finally {
    clock.clearTimeout(timer);
    signal.removeEventListener("abort", cancel);
  }
}

/** Waits, unless the scope ends first. @throws the signal's reason as soon as it aborts */
export function pause(ms: number, { signal, clock }: Pick<Scope, "signal" | "clock">): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(reasonOf(signal));
    const timer = clock.setTimeout(() => {
      signal.removeEventListener("abort", cancel);
      resolve();
    }, ms);
    const cancel = () => {
      clock.clearTimeout(timer);
      reject(reasonOf(signal));
    };
    signal.addEventListener("abort", cancel, { once: true });
  });
}

function reasonOf({ reason }: AbortSignal): Error {
  return reason instanceof Error && reason.name !== "AbortError" ? reason : new CancelledError();
}
