import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { ChannelModel } from "amqplib";
import { type BrokerOptions, type Context, Loggers, ServiceBroker, Strategies } from "moleculer";
import { AmqpTransporter } from "../transporters/amqp.ts";
import { AmqplibConnection } from "../transporters/amqplib.ts";
import type { AmqpTransporterOptions, RequestEvent } from "../transporters/options.ts";
import { eventually } from "./eventually.ts";
import { brokerUrl, deleteNamespace, releaseBroker } from "./rabbitmq.ts";

export interface Work {
  /** Name of the request. */
  name: string;
  /** Node to choose; the first one by default. */
  to?: string;
  /** Duration. */
  ms?: number;
  /** Ends the process, in a node of its own. */
  poison?: boolean;
}

export interface Done {
  name: string;
  node: string;
  suspect: boolean;
}

export interface Member {
  readonly broker: ServiceBroker;
  readonly transporter: AmqpTransporter;
  /** Names of the requests it began, in their order. */
  readonly began: string[];
  readonly events: RequestEvent[];
  /** Lines of level warn and above. */
  readonly log: string[];
}

interface MemberOptions {
  options?: Partial<AmqpTransporterOptions>;
  broker?: BrokerOptions;
  /** Whether it has the action `work.do`. */
  works?: boolean;
}

/** Chooses the node that the request's parameters name. */
class Wished extends Strategies.Base {
  override select(list: { id: string }[], ctx?: Context<Work>): never {
    return (list.find(({ id }) => id === ctx?.params.to) ?? list[0]) as never;
  }
}

/** Moleculer nodes on a namespace of their own, some in this process, some in others. */
export class Cluster {
  readonly namespace = `test-${randomBytes(5).toString("hex")}`;
  readonly #url: string;
  readonly #members: Member[] = [];
  readonly #children: ChildProcess[] = [];

  constructor(url: string) {
    this.#url = url;
  }

  /** A node in this process, not started. */
  create(nodeID: string, { options, broker, works = true }: MemberOptions = {}): Member {
    const member = { began: [], events: [], log: [] } as Pick<Member, "began" | "events" | "log">;
    const transporter = new AmqpTransporter({
      url: this.#url,
      observe: (event) => member.events.push(event),
      ...options,
    });
    class Memory extends Loggers.Base<Record<string, unknown>> {
      override getLogHandler() {
        return (level: string, args: unknown[]) => {
          if (level === "warn" || level === "error" || level === "fatal") {
            member.log.push(
              args.map((each) => (typeof each === "string" ? each : JSON.stringify(each))).join(" "),
            );
          }
        };
      }
    }
    const created = new ServiceBroker({
      namespace: this.namespace,
      nodeID,
      transporter,
      serializer: "CBOR",
      logger: new Memory(),
      heartbeatInterval: 1,
      heartbeatTimeout: 3,
      skipProcessEventRegistration: true,
      tracking: { enabled: true, shutdownTimeout: 5000 },
      transit: { serviceChangedDebounceTime: 10 } as object,
      registry: { strategy: Wished, preferLocal: false },
      ...broker,
    });
    if (works) {
      created.createService({
        name: "work",
        actions: {
          async do(ctx: Context<Work, { $suspect?: boolean }>): Promise<Done> {
            member.began.push(ctx.params.name);
            await new Promise((resolve) => setTimeout(resolve, ctx.params.ms ?? 0));
            return { name: ctx.params.name, node: nodeID, suspect: ctx.meta.$suspect ?? false };
          },
        },
      });
    }
    const all = { ...member, broker: created, transporter };
    this.#members.push(all);
    return all;
  }

  /** A started node in this process. */
  async start(nodeID: string, options?: MemberOptions): Promise<Member> {
    const member = this.create(nodeID, options);
    await member.broker.start();
    return member;
  }

  /** A node in a process of its own, running `work.do`. `began` gets the names of the requests it begins. */
  async fork(
    nodeID: string,
    options: Record<string, number> = {},
    began: string[] = [],
  ): Promise<ChildProcess> {
    const child = this.spawn(nodeID, options);
    child.on("message", (message: unknown) => {
      if (typeof message === "object") began.push((message as Work).name);
    });
    await Promise.race([once(child, "message"), once(child, "exit")]);
    return child;
  }

  /** A process that tries to become a node. */
  spawn(nodeID: string, options: Record<string, number> = {}, url = this.#url): ChildProcess {
    const file = fileURLToPath(new URL("../test/fixtures/transporter-node.ts", import.meta.url));
    const argument = JSON.stringify({ namespace: this.namespace, nodeID, url, options });
    const child = spawn(process.execPath, [file, argument], { stdio: ["ignore", "pipe", "pipe", "ipc"] });
    this.#children.push(child);
    return child;
  }

  /** Ends all nodes and deletes what they declared. */
  async stop(): Promise<void> {
    for (const child of this.#children) {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill("SIGKILL");
        await once(child, "exit");
      }
    }
    await Promise.all(this.#members.map(({ broker }) => broker.stop()));
    await deleteNamespace(this.namespace, this.#url, ["work.do", "clock.left"]);
  }
}

/** Gives each test of a file a cluster of its own on the tests' RabbitMQ, and stops it after the test. */
export function forEachTest(use: (cluster: Cluster, url: string) => void): void {
  let url: string;
  let cluster: Cluster;
  beforeAll(async () => {
    url = await brokerUrl();
  }, 180_000);
  afterAll(releaseBroker);
  beforeEach(() => {
    cluster = new Cluster(url);
    use(cluster, url);
  });
  afterEach(() => cluster.stop());
}

/** Waits until `member` knows that each of `nodes` has `work.do`. */
export async function knows({ broker }: Member, ...nodes: string[]): Promise<void> {
  await eventually(
    () => nodes.every((node) => broker.registry.getActionEndpointByNodeId("work.do", node)),
    30_000,
  );
}

/** Calls `work.do`. */
export function work({ broker }: Member, params: Work, timeout = 8000, nodeID?: string): Promise<Done> {
  return broker.call<Done, Work>("work.do", params, { timeout, ...(nodeID ? { nodeID } : {}) });
}

/** Breaks a node's TCP connection to RabbitMQ, without a goodbye. */
export function cut({ transporter }: Member): void {
  const connection = modelOf(transporter).connection as unknown as {
    stream: { destroy(error: Error): void };
  };
  connection.stream.destroy(new Error("cut by the test"));
}

/** Closes a node's channel, and only that. */
export async function closeChannel({ transporter }: Member): Promise<void> {
  const { channels } = modelOf(transporter).connection as unknown as {
    channels: { channel?: { close?(): Promise<void> } }[];
  };
  await channels.find(({ channel }) => channel?.close)?.channel?.close?.();
}

/** amqplib's connection under a transporter. */
export function modelOf({ connection }: AmqpTransporter): ChannelModel {
  if (!(connection instanceof AmqplibConnection)) throw new Error("The transporter has no connection");
  return connection.model;
}

/** `count` names: `<prefix>-0`, `<prefix>-1`, … */
export function names(prefix: string, count: number): string[] {
  return Array.from({ length: count }, (_, index) => `${prefix}-${index}`);
}
