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
  /** CPU seconds used so far, and what predictions took. */
  | { readonly do: "figures" }
  /**
   * Keeps `inFlight` calls open for `warmUpMs` and `ms` after it; answers how many of the latter's were answered and how
   * many failed, and what CPU time that took.
   */
  | { readonly do: "call"; readonly inFlight: number; readonly warmUpMs: number; readonly ms: number };

export interface Setup {
  readonly role: "node" | "caller";
  /** Number of the first broker, and how many. */
  readonly first: number;
  readonly count: number;
  readonly url: string;
  readonly namespace: string;
  /** Milliseconds that one prediction sleeps; a node does one after the other. */
  readonly serviceMs: number;
}

export interface Report {
  /** Calls. */
  readonly answered: number;
  readonly failed: number;
  /** CPU seconds: of the calls, or so far. */
  readonly cpu: number;
  /** Mean milliseconds of a prediction, so far: on a busy machine timers are late. */
  readonly engineMs: number;
}

const NOTHING: Report = { answered: 0, failed: 0, cpu: 0, engineMs: 0 };

const brokers: ServiceBroker[] = [];
let [predictions, sleptMs] = [0, 0];

async function sleep(ms: number): Promise<void> {
  const began = performance.now();
  await delay(ms);
  predictions++;
  sleptMs += performance.now() - began;
}

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
          last = last.then(() => sleep(serviceMs));
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

/** CPU seconds of this process. */
function cpu(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

async function callFor(inFlight: number, warmUpMs: number, ms: number): Promise<Report> {
  const begin = performance.now() + warmUpMs;
  const end = begin + ms;
  let [answered, failed] = [0, 0];
  const one = async (broker: ServiceBroker) => {
    while (performance.now() < end) {
      const isOk = await broker.call("model.predict", { pixels: Buffer.alloc(1000) }).then(
        () => true,
        () => false,
      );
      const now = performance.now();
      if (!isOk) failed++;
      else if (now >= begin && now < end) answered++;
    }
  };
  const calls = Array.from({ length: inFlight }, (_, i) => one(brokers[i % brokers.length] as ServiceBroker));
  await delay(warmUpMs);
  const before = cpu();
  await delay(ms);
  const used = cpu() - before;
  await Promise.all(calls);
  return { ...NOTHING, answered, failed, cpu: used };
}

async function obey(order: Order): Promise<Report> {
  switch (order.do) {
    case "start": {
      const { setup } = order;
      for (let i = 0; i < setup.count; i++) brokers.push(create(setup, setup.first + i));
      await Promise.all(brokers.map((broker) => broker.start()));
      return NOTHING;
    }
    case "converged":
      while (!isConverged(order.nodes)) await delay(20);
      return NOTHING;
    case "figures":
      return { ...NOTHING, cpu: cpu(), engineMs: predictions === 0 ? 0 : sleptMs / predictions };
    case "call":
      return callFor(order.inFlight, order.warmUpMs, order.ms);
  }
}

process.on("message", (order: Order) => {
  void obey(order).then((report) => process.send?.(report));
});
process.once("disconnect", () => process.exit());
