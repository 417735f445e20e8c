import { randomUUID } from "node:crypto";
import type { Context } from "moleculer";
import { call } from "../actions.ts";
import { type CancelMeta, cancel } from "../request/cancellation.ts";
import { type Scope, timeLeft } from "../request/scope.ts";
import type { PredictParams, PredictResult } from "../types.ts";

/**
 * Calls a model's action inside `scope`. The call has a cancellation of its own, which the model hears of when the scope
 * aborts: several requests may wait for it, and the client of the one that began it may hang up.
 *
 * @param ctx of the request that began it
 */
export async function callModel(
  ctx: Context,
  action: string,
  params: PredictParams,
  scope: Scope,
): Promise<PredictResult> {
  const { broker } = ctx;
  const cancelId = randomUUID();
  const giveUp = () => cancel(broker, cancelId);
  const left = timeLeft(scope);
  scope.signal.addEventListener("abort", giveUp, { once: true });
  try {
    // Through the broker: a context takes over its calls' meta, and this one's cancelId is not the request's.
    return await call(broker, action as `${string}.predict`, params, {
      parentCtx: ctx,
      meta: { cancelId } satisfies CancelMeta,
      ...(Number.isFinite(left) ? { timeout: Math.max(1, Math.floor(left)) } : {}),
    });
  } finally {
    scope.signal.removeEventListener("abort", giveUp);
  }
}
