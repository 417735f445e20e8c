import type { ActionSchema, Context, Middleware, Service, ServiceBroker, Transit } from "moleculer";
import { loadOf, parseReport } from "../lib/load/load.ts";
import type { Outcome } from "../lib/load/table.ts";
import { healthOf } from "../lib/telemetry/health.ts";
import { gauge } from "../lib/telemetry/metrics.ts";

export interface LoadOptions {
  /**
   * Milliseconds between two measurements of CPU and memory; heartbeats carry the latest. Minimum 1.
   * @default 1000
   */
  readonly sampleMs?: number;
  /**
   * Folder that holds `proc` and `sys`.
   * @default "/"
   */
  readonly root?: string;
}

/** Moleculer's types have these two hooks return the wrapped function's result. */
interface TransitHooks {
  transitPublish(next: Transit["publish"]): Transit["publish"];
  transitMessageHandler(next: Transit["messageHandler"]): Transit["messageHandler"];
}

/**
 * Tells this node's load with every heartbeat, keeps what the others tell, and counts what this node has in flight
 * to each: all that the load-aware strategy decides by. Moleculer's own CPU figure is the host's and comes without
 * memory. Heartbeats are packets of the transporter, so there are none over TCP (it gossips).
 */
export function Load({ sampleMs = 1000, root = "/" }: LoadOptions = {}): Middleware {
  function createLoad(broker: ServiceBroker): Middleware {
    const state = loadOf(broker, { root });
    const { table } = state;
    const health = healthOf(broker);
    // One without a decoder, say, would fail what others can do.
    const report = () => state.report(health.state === "draining" || health.missing("ready").length > 0);
    let timer: NodeJS.Timeout | undefined;

    function measure(): void {
      const { cpu, memory } = state.sample();
      gauge(broker, "node.cpu.ratio", cpu);
      gauge(broker, "node.memory.ratio", memory);
      table.heartbeat(broker.nodeID, report());
    }

    const transit: TransitHooks = {
      transitPublish: (next) =>
        function publishWithLoad(packet) {
          if (packet.type !== "HEARTBEAT") return next(packet);
          // One that was begun before the disconnect finds the channel closing, and its error has no one to catch it.
          if (broker.transit?.disconnecting) return Promise.resolve();
          return next(Object.assign(packet, { payload: { ...packet.payload, load: report() } }));
        },
      transitMessageHandler: (next) =>
        function handleWithLoad(cmd, packet) {
          if (cmd === "HEARTBEAT") keep(packet.payload ?? {});
          return next(cmd, packet);
        },
    };

    function keep(payload: { readonly sender?: unknown; readonly load?: unknown }): void {
      const { sender, load: theirs } = payload;
      // Only of nodes that Moleculer knows: garbage with ever new senders must not fill the table.
      if (typeof sender !== "string" || sender === broker.nodeID) return;
      if (broker.registry.nodes.get(sender)?.available) table.heartbeat(sender, parseReport(theirs));
    }

    return {
      name: "Load",
      ...(transit as unknown as Middleware),

      created() {
        const seen = ({ node }: NodeEvent) => table.seen(node.id, node.instanceID ?? undefined);
        broker.localBus.on("$node.connected", seen);
        broker.localBus.on("$node.updated", seen);
        broker.localBus.on("$node.disconnected", ({ node }: NodeEvent) => table.forget(node.id));
      },

      async started() {
        measure();
        timer = setInterval(measure, sampleMs).unref();
      },

      async stopped() {
        clearInterval(timer);
      },

      remoteAction(next, action) {
        if (isInternal(action)) return next;
        return async function countedRemote(this: Service, ctx: Context) {
          const node = ctx.nodeID ?? "";
          const end = table.begin(node);
          // Moleculer forgets a request that timed out, and its promise then stays open for ever.
          const timeout = ctx.options.timeout ?? 0;
          const late = timeout > 0 ? setTimeout(end, timeout, "missed") : undefined;
          let outcome: Outcome = "failed";
          try {
            const result: unknown = await next.call(this, ctx);
            outcome = "answered";
            return result;
          } catch (error) {
            // A node that refuses at once would look idle and draw all the work.
            if (isRefusal(error)) outcome = "missed";
            throw error;
          } finally {
            clearTimeout(late);
            // Moleculer puts there who answered, which is another node when the work was stolen.
            end(ctx.nodeID === node ? outcome : "missed");
          }
        };
      },

      localAction(next, action) {
        if (isInternal(action)) return next;
        return async function countedLocal(this: Service, ctx: Context) {
          const done = state.begin();
          const end = isOwnCall(ctx, broker) ? table.begin(broker.nodeID) : undefined;
          try {
            return await next.call(this, ctx);
          } finally {
            end?.("answered");
            done();
          }
        };
      },
    };
  }
  // A function is as good to Moleculer, which calls it with the broker; its types know objects only.
  return createLoad as unknown as Middleware;
}

interface NodeEvent {
  readonly node: { readonly id: string; readonly instanceID: string | null };
}

/** Moleculer's own actions (`$node.list`) are no work. */
function isInternal({ name }: ActionSchema): boolean {
  return name?.startsWith("$") ?? false;
}

/** A request that came over the wire bears its sender's node ID. */
function isOwnCall({ nodeID }: Context, broker: ServiceBroker): boolean {
  return nodeID === broker.nodeID;
}

function isRefusal(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === 503;
}
