import { setTimeout as delay } from "node:timers/promises";
import { type Context, ServiceBroker } from "moleculer";
import { Load } from "../middlewares/load.ts";
import { LoadAwareStrategy } from "../strategies/load-aware.ts";
import { AmqpTransporter } from "../transporters/amqp.ts";

/*
 * One process of `scale.ts` with many brokers: model nodes whose engines sleep, or callers. What it is told and answers
 * is in `Order` and `Report`.
 */

/** What the process is asked for, by message. */
export type Order =
  | { readonly do: "start"; readonly setup: Setup }
  /** Answers once every transporter is alive and, on callers, `nodes` model nodes are known. */
  | { readonly do: "converged"; readonly nodes: number }
  /** CPU seconds used so far. */
  | { readonly do: "cpu" }
  /** Keeps `inFlight` calls open for `ms`; answers how many were answered, and how many failed. */
  | { readonly do: "call"; readonly inFlight: number; readonly ms: number };

export interface Setup {
  readonly role: "node" | "caller";
  readonly count: number;
  readonly url: string;
  readonly namespace: string;
  /** Milliseconds that one prediction sleeps; a node does one after the other. */
  readonly serviceMs: number;
}

/** @property value CPU seconds, or calls answered */
export interface Report {
  readonly value: number;
  readonly failed: number;
}

const brokers: ServiceBroker[] = [];

function create({ role, url, namespace, serviceMs }: Setup, index: number): ServiceBroker {
  const transporter = new AmqpTransporter({ url, hearsOthers: () => role === "caller" });
  const broker = new ServiceBroker({
    nodeID: `${role}-${index}`,
    namespace,
    logger: false,
    transporter,
    serializer: "CBOR",
    registry: { strategy: LoadAwareStrategy, preferLocal: false },
    requestTimeout: 30_000,
    heartbeatInterval: 2,
    heartbeatTimeout: 6,
    internalServices: false,
    skipProcessEventRegistration: true,
    middlewares: [Load() as never],
  });
  if (role === "node") {
    let last: Promise<void> = Promise.resolve();
    broker.createService({
      name: "model",
      actions: {
        predict: async (_: Context) => {
          last = last.then(() => delay(serviceMs));
          await last;
          return broker.nodeID;
        },
      },
    });
  }
  return broker;
}

function isConverged(nodes: number): boolean {
  return brokers.every(({ transit, registry }) => {
    const { tx } = transit ?? {};
    if (!(tx instanceof AmqpTransporter) || !tx.alive) return false;
    const known = registry.nodes.toArray().filter((node) => !node.local && node.available);
    return !registry.getLocalNodeInfo().services.length
      ? known.filter(({ id }) => id.startsWith("node-")).length >= nodes
      : true;
  });
}

async function callFor(inFlight: number, ms: number): Promise<Report> {
  const end = performance.now() + ms;
  let [value, failed] = [0, 0];
  const one = async (broker: ServiceBroker) => {
    while (performance.now() < end) {
      try {
        await broker.call("model.predict", { pixels: Buffer.alloc(1000) });
        if (performance.now() < end) value++;
      } catch {
        failed++;
      }
    }
  };
  await Promise.all(
    Array.from({ length: inFlight }, (_, i) => one(brokers[i % brokers.length] as ServiceBroker)),
  );
  return { value, failed };
}

async function obey(order: Order): Promise<Report> {
  switch (order.do) {
    case "start": {
      const { setup } = order;
      for (let i = 0; i < setup.count; i++) brokers.push(create(setup, i));
      await Promise.all(brokers.map((broker) => broker.start()));
      return { value: 0, failed: 0 };
    }
    case "converged":
      while (!isConverged(order.nodes)) await delay(20);
      return { value: 0, failed: 0 };
    case "cpu": {
      const { user, system } = process.cpuUsage();
      return { value: (user + system) / 1e6, failed: 0 };
    }
    case "call":
      return callFor(order.inFlight, order.ms);
  }
}

process.on("message", (order: Order) => {
  void obey(order).then((report) => process.send?.(report));
});
process.once("disconnect", () => process.exit());
