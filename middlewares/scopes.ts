import type { Context, Middleware, Service, ServiceBroker } from "moleculer";
import { type CancelMeta, cancellationsOf, followTaken } from "../lib/request/cancellation.ts";
import { createScope, openScope, type Scope } from "../lib/request/scope.ts";

/**
 * Gives every action's context its scope: deadline, cancellation, clock and request id. Read it with `scopeOf`. Remembers
 * which nodes are asked, for `cancel`.
 */
export function Scopes(): (broker: ServiceBroker) => Middleware {
  return function createScopes(broker) {
    const cancellations = cancellationsOf(broker);
    followTaken(broker);
    return {
      name: "Scopes",
      remoteAction(next) {
        return function cancellableAction(this: Service, ctx: Context<unknown, CancelMeta>) {
          const { cancelId } = ctx.meta;
          const ask = () => next.call(this, ctx);
          return cancelId === undefined
            ? ask()
            : cancellations.asking(ctx.id, cancelId, ctx.nodeID ?? "", ask);
        };
      },
      localAction(next, { name = "" }) {
        if (name.startsWith("$")) return next;
        return function scopedAction(this: Service, ctx: Context<unknown, CancelMeta, { scope?: Scope }>) {
          return cancellations.track(ctx.meta.cancelId, async (signal = createScope().signal) => {
            ctx.locals.scope = openScope(ctx, signal);
            return next.call(this, ctx);
          });
        };
      },
    };
  };
}
