import type { Context, Middleware, Service, ServiceBroker } from "moleculer";

/** One debug line for each action a node runs, so that a request can be followed through all logs by its id. */
export function RequestLog(): (broker: ServiceBroker) => Middleware {
  return function createRequestLog(broker) {
    const logger = broker.getLogger("requests");
    return {
      name: "RequestLog",
      localAction(next, { name = "" }) {
        if (name.startsWith("$")) return next;
        return async function loggedAction(this: Service, ctx: Context<unknown, { traceparent?: string }>) {
          const began = performance.now();
          let outcome = "failed";
          try {
            const result: unknown = await next.call(this, ctx);
            outcome = "done";
            return result;
          } finally {
            const { requestID: requestId, nodeID: from, meta } = ctx;
            const { traceparent } = meta;
            const ms = performance.now() - began;
            logger.debug("Action", {
              requestId,
              action: name,
              outcome,
              from,
              ms,
              ...(traceparent ? { traceparent } : {}),
            });
          }
        };
      },
    };
  };
}
