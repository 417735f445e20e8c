import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { resolve } from "node:path";
import { connect } from "amqplib";
import { type BrokerOptions, ServiceBroker, type Strategies } from "moleculer";
import { Load } from "../middlewares/load.ts";
import { LoadAwareStrategy } from "../strategies/load-aware.ts";
import type { ScoreOptions } from "../strategies/score.ts";
import { deleteNamespace } from "../testkit/rabbitmq.ts";
import { AmqpTransporter } from "../transporters/amqp.ts";

/** What one node, caller or model, is made of. Crosses the process boundary as JSON. */
export interface NodeSettings {
  readonly nodeID: string;
  readonly namespace: string;
  /** RabbitMQ's address. */
  readonly url: string;
  /** `LoadAware`, one of Moleculer's, or `none`: every node pulls from one queue per action. */
  readonly strategy: "LoadAware" | "RoundRobin" | "CpuUsage" | "Latency" | "none";
  readonly strategyOptions?: ScoreOptions;
  /** Moleculer's transporter as it comes, or ours. */
  readonly transporter: "stock" | "ours";
  readonly prefetch: number;
  /** Milliseconds of one prediction; one after the other, as in an engine. */
  readonly serviceMs?: number;
  /** Rounds of hashing in every prediction: work for the CPU. */
  readonly rounds?: number;
  /** Folder that holds the `proc` and `sys` its load is read from. */
  readonly root?: string;
}

/** A broker with these settings; nothing is started. */
export function createBroker(settings: NodeSettings): ServiceBroker {
  const {
    nodeID,
    namespace,
    url,
    strategy,
    strategyOptions = {},
    transporter,
    prefetch,
    root = "/",
  } = settings;
  // Nagle's algorithm would hold small packets back for 40 ms and hide what is measured.
  const stock = { url, prefetch, socketOptions: { noDelay: true } };
  const options: BrokerOptions = {
    nodeID,
    namespace,
    logger: { type: "Console", options: { level: "error" } },
    transporter:
      transporter === "ours" ? new AmqpTransporter({ url, prefetch }) : { type: "AMQP", options: stock },
    disableBalancer: strategy === "none",
    registry: {
      preferLocal: false,
      ...(strategy === "none" ? {} : { strategy: strategyNamed(strategy), strategyOptions }),
    },
    requestTimeout: 30_000,
    heartbeatInterval: 2,
    heartbeatTimeout: 6,
    internalServices: false,
    middlewares: [Load({ root })],
  };
  const broker = new ServiceBroker(options);
  // Moleculer's Latency strategy measures hosts; each node stands for a pod with a name of its own.
  Object.assign(broker.registry.nodes.localNode ?? {}, { hostname: nodeID });
  return broker;
}

function strategyNamed(name: string): typeof Strategies.Base | string {
  return name === "LoadAware" ? LoadAwareStrategy : name;
}

export interface NodeProcess {
  readonly nodeID: string;
  readonly child: ChildProcess;
  stop(): Promise<void>;
}

/**
 * Starts a model node as a process of its own; resolves when it serves `model.predict`.
 *
 * @param cpu number of the only CPU it may run on (Linux)
 */
export async function startNode(settings: NodeSettings, cpu?: number): Promise<NodeProcess> {
  const script = resolve(import.meta.dirname, "balance-node.ts");
  const child = fork(script, [JSON.stringify(settings)], {
    ...(cpu === undefined ? {} : { execPath: "taskset", execArgv: ["-c", String(cpu), process.execPath] }),
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  const gone = once(child, "exit");
  const [message] = await Promise.race([once(child, "message"), gone]);
  if (message !== "ready") throw new Error(`The node ${settings.nodeID} exited with ${String(message)}`);
  return {
    nodeID: settings.nodeID,
    child,
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      // SIGKILL also ends a process that is stopped.
      child.kill("SIGKILL");
      await gone;
    },
  };
}

/** Removes what these nodes have left in RabbitMQ: exchanges and shared queues live on without them. */
export async function deleteTopology(
  url: string,
  namespace: string,
  nodes: readonly string[],
): Promise<void> {
  await deleteNamespace(namespace, url, ["model.predict"]);
  const connection = await connect(url);
  const channel = await connection.createChannel();
  // Moleculer's own transporter, for comparison.
  const broadcasts = ["DISCOVER", "INFO", "DISCONNECT", "HEARTBEAT", "PING"];
  const queues = nodes.flatMap((node) =>
    ["REQ", "RES", "EVENT", "PONG", ...broadcasts].map((kind) => `${kind}.${node}`),
  );
  for (const kind of broadcasts) await channel.deleteExchange(`MOL-${namespace}.${kind}`);
  for (const queue of [...queues, "REQB.model.predict"]) {
    await channel.deleteQueue(`MOL-${namespace}.${queue}`);
  }
  await connection.close();
}
