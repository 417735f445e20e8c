import type { Middleware, ServiceBroker, Transit } from "moleculer";
import { NODE_ID } from "../lib/node-id.ts";
import { Warnings } from "../transporters/warnings.ts";

export interface PeersOptions {
  /** Milliseconds between two calls to a namesake. Minimum 1. @default 1000 */
  readonly callEveryMs?: number;
}

/** How often a namesake is called before it counts as gone. */
const CALLS = 5;

/** Moleculer's types have these two hooks return the wrapped function's result. */
interface TransitHooks {
  transitPublish(next: Transit["publish"]): Transit["publish"];
  transitMessageHandler(next: Transit["messageHandler"]): Transit["messageHandler"];
}

interface Payload {
  readonly sender?: unknown;
  readonly instanceID?: unknown;
  readonly uptimeMs?: unknown;
}

/**
 * What a node believes of what others say of themselves.
 *
 * A packet whose sender's name could forge log lines is dropped.
 *
 * A packet with this node's own ID and another instance makes Moleculer end the process at once, without a drain:
 * whether it is a second process with this `NODE_ID`, a predecessor's last word, or forged. Here each node introduces
 * itself to its namesakes, and one that meets another says who it is for some seconds. If the other answers, so that there really are two, the younger ends and says why.
 */
export function Peers({ callEveryMs = 1000 }: PeersOptions = {}): Middleware {
  function createPeers(broker: ServiceBroker): Middleware {
    const began = performance.now();
    const warnings = new Warnings(broker.logger, () => performance.now());
    /** The namesake that is being called, and for how long still. */
    let called: { readonly instance: unknown; readonly since: number } | undefined;
    let timer: NodeJS.Timeout | undefined;

    /** To its own node ID, so that a namesake hears it which hears of nobody else. */
    function introduce(): void {
      if (broker.transit?.connected) void broker.registry.discoverer.sendLocalNodeInfo(broker.nodeID);
    }

    function call(left: number): void {
      timer = setTimeout(() => {
        introduce();
        if (left > 1) call(left - 1);
        else called = undefined;
      }, callEveryMs).unref();
    }

    function meet({ instanceID, uptimeMs }: Payload): void {
      if (!called) {
        called = { instance: instanceID, since: performance.now() };
        warnings.about("A packet has this node's ID but is not from it", { nodeID: broker.nodeID });
        call(CALLS);
        return;
      }
      // One that speaks once may be gone, and its message old.
      if (called.instance !== instanceID || performance.now() - called.since < callEveryMs) return;
      const isYounger = typeof uptimeMs === "number" && performance.now() - began < uptimeMs;
      if (isYounger)
        broker.fatal(`Another process has the node ID ${broker.nodeID}: give each its own NODE_ID`);
      else warnings.about("Another process has this node's ID; it should end", { nodeID: broker.nodeID });
    }

    const transit: TransitHooks = {
      transitPublish: (next) =>
        function publishWithAge(packet) {
          if (packet.type !== "INFO") return next(packet);
          const payload = { ...packet.payload, uptimeMs: performance.now() - began };
          return next(Object.assign(packet, { payload }));
        },
      transitMessageHandler: (next) =>
        function handleOfPeers(cmd, packet) {
          const payload = (packet.payload ?? {}) as Payload;
          const { sender } = payload;
          if (typeof sender !== "string" || sender === "" || !NODE_ID.test(sender)) {
            warnings.about("A packet's sender is no node ID", {
              cmd,
              sender: JSON.stringify(sender)?.slice(0, 100),
            });
            return Promise.resolve();
          }
          if (cmd !== "INFO" || sender !== broker.nodeID || payload.instanceID === broker.instanceID) {
            return next(cmd, packet);
          }
          meet(payload);
          return Promise.resolve();
        },
    };

    // After the first connection it is not ready yet to say so.
    broker.localBus.on("$transporter.connected", introduce);

    return {
      name: "Peers",
      async started() {
        introduce();
      },
      ...(transit as unknown as Middleware),
      async stopped() {
        clearTimeout(timer);
      },
    };
  }
  // A function is as good to Moleculer, which calls it with the broker; its types know objects only.
  return createPeers as unknown as Middleware;
}
