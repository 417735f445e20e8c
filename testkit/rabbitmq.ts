import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { connect } from "amqplib";
import { Topology } from "../transporters/topology.ts";
import { installed } from "./debian.ts";
import { eventually } from "./eventually.ts";
import { freePort } from "./port.ts";

const run = promisify(execFile);
const START_TIMEOUT_MS = 120_000;
const STANDARD_URL = "amqp://guest:guest@127.0.0.1:5672";
const DOCKER_IMAGE = "rabbitmq:4-alpine";
/** Debian's start script insists on the service's own user; the one behind it does not. */
const SERVERS = ["/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/sbin/rabbitmq-server"];

/** A RabbitMQ of our own, that may be killed. */
export interface Rabbit {
  readonly url: string;
  /** Runs `rabbitmqctl` on it. */
  ctl(...args: string[]): Promise<string>;
  /** Stops it in good order; `start` brings it back with its data. */
  stop(): Promise<void>;
  /** SIGKILL. */
  kill(): Promise<void>;
  /** Resolves when it accepts connections. */
  start(): Promise<void>;
  /** Stops and starts. */
  restart(): Promise<void>;
  /** Kills it and deletes its data. */
  remove(): Promise<void>;
}

export interface RabbitOptions {
  /** Where it serves its metrics to Prometheus; absent: nowhere. Not with Docker. */
  readonly metricsPort?: number;
}

let shared: Rabbit | undefined;

/**
 * The URL of a usable RabbitMQ: `AMQP_URL`, else the one on this machine's standard port, else one started for the
 * occasion and stopped by `releaseBroker`.
 */
export async function brokerUrl(): Promise<string> {
  const { AMQP_URL } = process.env;
  if (AMQP_URL) return AMQP_URL;
  if (!shared && (await answers(STANDARD_URL))) return STANDARD_URL;
  shared ??= await startRabbit();
  return shared.url;
}

/** Stops what `brokerUrl` started, if it started anything. For `afterAll`. */
export async function releaseBroker(): Promise<void> {
  await shared?.remove();
  shared = undefined;
}

/** What lasts in RabbitMQ of a namespace. Queues of single nodes end by themselves, within two minutes of their node. */
export async function deleteNamespace(namespace: string, url: string, actions: string[]) {
  const connection = await connect(url);
  const channel = await connection.createChannel();
  const topology = new Topology(`MOL-${namespace}`);
  const queues = [topology.dead(), topology.deadLetters()];
  for (const action of actions) queues.push(topology.shared(action), topology.quarantine(action));
  for (const { name } of queues) await channel.deleteQueue(name);
  const { targetedExchange, sharedExchange, deadExchange, nodeExchange, allExchange } = topology;
  for (const each of [targetedExchange, sharedExchange, deadExchange, nodeExchange, allExchange]) {
    await channel.deleteExchange(each);
  }
  await connection.close();
}

/** Always starts a RabbitMQ of our own: from the installed package, else by installing it, else with Docker. */
export async function startRabbit(options: RabbitOptions = {}): Promise<Rabbit> {
  const server = await installed(SERVERS, "rabbitmq-server");
  const rabbit = server ? await localRabbit(server, options) : await dockerRabbit();
  await rabbit.start();
  return rabbit;
}

/**
 * Starts a cluster of RabbitMQ on this machine: own names, ports and data, one cookie. Any member may be killed.
 * @throws where no RabbitMQ is installed: containers would need a network
 */
export async function startRabbitCluster(count = 3): Promise<Rabbit[]> {
  const server = await installed(SERVERS, "rabbitmq-server");
  if (!server) throw new Error("RabbitMQ is not installed");
  const home = await mkdtemp(join(tmpdir(), "rabbits-"));
  const names = Array.from({ length: count }, () => nodeName());
  const epmdPort = await freePort();
  const members = await Promise.all(
    names.map((name) => localRabbit(server, { cluster: { home, epmdPort, name, names } })),
  );
  // The others find the first one.
  for (const member of members) await member.start();
  return members;
}

/** Who belongs together. */
interface ClusterPlace {
  /** Folder with the cookie. */
  readonly home: string;
  readonly epmdPort: number;
  readonly name: string;
  readonly names: readonly string[];
}

function nodeName(): string {
  return `test-${randomBytes(4).toString("hex")}@localhost`;
}

async function localRabbit(
  server: string,
  { metricsPort, cluster }: RabbitOptions & { readonly cluster?: ClusterPlace },
): Promise<Rabbit> {
  const folder = await mkdtemp(join(tmpdir(), "rabbit-"));
  const [port, distPort] = [await freePort(), await freePort()];
  const { home, epmdPort, name, names } = cluster ?? {
    home: folder,
    epmdPort: await freePort(),
    name: nodeName(),
    names: [],
  };
  const file = (name: string) => join(folder, name);
  await mkdir(file("log"));
  const metrics = metricsPort === undefined ? "" : `prometheus.tcp.port = ${metricsPort}\n`;
  const peers = names.map((each, i) => `cluster_formation.classic_config.nodes.${i + 1} = ${each}\n`);
  // The largest message is RabbitMQ's own since 4.0.
  const conf = `loopback_users = none\nlog.console.level = error\nmax_message_size = 16777216\n`;
  await writeFile(file("rabbitmq.conf"), conf + metrics + peers.join(""));
  await writeFile(file("enabled_plugins"), metrics === "" ? "[].\n" : "[rabbitmq_prometheus].\n");
  await writeFile(file("env.conf"), "");
  const env = {
    PATH: process.env["PATH"],
    LANG: "C.UTF-8",
    // The Erlang cookie lives here.
    HOME: home,
    // A name server of its own, that ends with it.
    ERL_EPMD_PORT: String(epmdPort),
    ERL_EPMD_ADDRESS: "127.0.0.1",
    // Else it refuses to end while it has not noticed the death of the node.
    ERL_EPMD_RELAXED_COMMAND_CHECK: "1",
    RABBITMQ_NODENAME: name,
    RABBITMQ_NODE_IP_ADDRESS: "127.0.0.1",
    RABBITMQ_NODE_PORT: String(port),
    RABBITMQ_DIST_PORT: String(distPort),
    RABBITMQ_MNESIA_BASE: file("data"),
    RABBITMQ_LOG_BASE: file("log"),
    RABBITMQ_CONFIG_FILE: file("rabbitmq"),
    RABBITMQ_CONF_ENV_FILE: file("env.conf"),
    RABBITMQ_ENABLED_PLUGINS_FILE: file("enabled_plugins"),
    RABBITMQ_PID_FILE: file("pid"),
  };
  const url = `amqp://guest:guest@127.0.0.1:${port}`;
  let process_: ChildProcess | undefined;

  const end = async (signal: NodeJS.Signals) => {
    const running = process_;
    process_ = undefined;
    if (!running?.pid || running.exitCode !== null || running.signalCode !== null) return;
    const exited = once(running, "exit");
    // The start script and Erlang are a group of their own.
    process.kill(-running.pid, signal);
    await exited;
    await eventually(async () => !(await answers(url)), START_TIMEOUT_MS);
  };

  const rabbit: Rabbit = {
    url,
    async ctl(...args) {
      const { stdout } = await run(join(server, "../rabbitmqctl"), args, { env });
      return stdout;
    },
    async start() {
      process_ = spawn(server, [], { env, detached: true, stdio: "ignore" });
      await eventually(() => answers(url), START_TIMEOUT_MS);
    },
    stop: () => end("SIGTERM"),
    kill: () => end("SIGKILL"),
    async restart() {
      await rabbit.stop();
      await rabbit.start();
    },
    async remove() {
      process.off("exit", killAtExit);
      await end("SIGKILL");
      await run("epmd", ["-kill"], { env }).catch(() => {});
      await rm(folder, { recursive: true, force: true });
    },
  };
  const killAtExit = () => {
    if (process_?.pid) process.kill(-process_.pid, "SIGKILL");
    try {
      execFileSync("epmd", ["-kill"], { env, stdio: "ignore" });
    } catch {
      // Gone already.
    }
  };
  process.on("exit", killAtExit);
  return rabbit;
}

async function dockerRabbit(): Promise<Rabbit> {
  const port = await freePort();
  const url = `amqp://guest:guest@127.0.0.1:${port}`;
  const docker = async (...args: string[]) => (await run("docker", args)).stdout.trim();
  const id = await docker("create", "--publish", `127.0.0.1:${port}:5672`, DOCKER_IMAGE);
  const rabbit: Rabbit = {
    url,
    ctl: (...args) => docker("exec", id, "rabbitmqctl", ...args),
    async start() {
      await docker("start", id);
      await eventually(() => answers(url), START_TIMEOUT_MS);
    },
    async stop() {
      await docker("stop", id);
    },
    async kill() {
      await docker("kill", id);
    },
    async restart() {
      await rabbit.stop();
      await rabbit.start();
    },
    async remove() {
      await docker("rm", "--force", "--volumes", id);
    },
  };
  return rabbit;
}

/** Whether an AMQP handshake succeeds: an open port is not yet a running RabbitMQ. */
async function answers(url: string): Promise<boolean> {
  try {
    const connection = await connect(url, { timeout: 2000 });
    await connection.close();
    return true;
  } catch {
    return false;
  }
}
