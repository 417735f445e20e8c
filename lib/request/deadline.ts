import type { Context } from "moleculer";

/**
 * When a request must be answered, on the clock of `performance.now()`; undefined: never.
 *
 * The deadline rides as Moleculer's `timeout`: the time left when a call is sent, and so the same on nodes whose
 * clocks differ. Moleculer counts it down on the node where a handler runs.
 */
export function deadlineOf(ctx: Context): number | undefined {
  const { timeout } = ctx.options;
  if (!timeout || timeout <= 0) return undefined;
  const { startHrTime } = ctx as { startHrTime?: [number, number] };
  if (!startHrTime) return performance.now() + timeout;
  const [seconds, nanoseconds] = process.hrtime(startHrTime);
  return performance.now() + timeout - (seconds * 1e3 + nanoseconds / 1e6);
}
