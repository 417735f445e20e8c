import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { eventually } from "../../testkit/eventually.ts";
import { freePort } from "../../testkit/port.ts";
import { MECHANISMS, type Mechanism, type MechanismName } from "./mechanisms.ts";
import type { Network } from "./network.ts";

const ROOT = resolve(import.meta.dirname, "../..");
const READY_TIMEOUT_MS = 60_000;
const PROBE_TIMEOUT_MS = 2000;
const PROBE_INTERVAL_MS = 500;

/** A metric that rises with every request a service handles. */
const WORK = {
  gateway: /^http_requests_total\{[^}]*route="\/api\/classify"[^}]*\} (\d+)/gm,
  dispatcher: /^dispatcher_decode_seconds_count\S* (\d+)/gm,
  model: /^inference_requests_total\{[^}]*outcome="ok"[^}]*\} (\d+)/gm,
};

type Env = Readonly<Record<string, string>>;

export interface ClusterOptions {
  /** Settings of every process. */
  readonly env: Env;
  /** Addresses of RabbitMQ's members; each process begins with the next one. */
  readonly rabbits: readonly string[];
  /** Folder of the processes' logs. */
  readonly logs: string;
  /** What is switched off in every process. */
  readonly without?: MechanismName;
}

export interface StartOptions {
  /** Settings on top of the cluster's. */
  readonly env?: Env;
  /** Where the process runs; else in this machine's own network. */
  readonly network?: Network;
  /** Starts another whenever one dies by itself, as Kubernetes would. */
  readonly restarts?: boolean;
}

/** One process of the cluster. */
export class Member {
  readonly name: string;
  readonly service: string;
  /** Of the gateway; of the admin server in other processes. */
  readonly url: string;
  /** Where it runs, if not in this machine's own. */
  readonly network: Network | undefined;
  readonly #process: ChildProcess;

  constructor(options: Pick<Member, "name" | "service" | "url" | "network">, process: ChildProcess) {
    this.name = options.name;
    this.service = options.service;
    this.url = options.url;
    this.network = options.network;
    this.#process = process;
  }

  get alive(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null;
  }

  signal(signal: NodeJS.Signals): void {
    this.#process.kill(signal);
  }

  /** SIGKILL. */
  async kill(): Promise<void> {
    if (!this.alive) return;
    const gone = once(this.#process, "exit");
    this.signal("SIGKILL");
    await gone;
  }

  /** SIGTERM. @returns the exit code; null if it ended by a signal */
  async stop(): Promise<number | null> {
    const gone = once(this.#process, "exit");
    this.signal("SIGTERM");
    await gone;
    return this.#process.exitCode;
  }

  async ready(): Promise<boolean> {
    const { status } = await this.#get("/health/ready");
    return status === 200;
  }

  /** Requests it has handled. */
  async handled(): Promise<number> {
    const metrics = await (await this.#get("/metrics")).text();
    const work = this.service in WORK ? WORK[this.service as keyof typeof WORK] : WORK.model;
    return [...metrics.matchAll(work)].reduce((sum, [, value]) => sum + Number(value), 0);
  }

  /** Resident memory, bytes; undefined where there is no `/proc`. */
  async memory(): Promise<number | undefined> {
    const status = await readFile(`/proc/${this.#process.pid}/status`, "utf8").catch(() => "");
    const [, kilobytes] = /^VmRSS:\s+(\d+) kB/m.exec(status) ?? [];
    return kilobytes === undefined ? undefined : Number(kilobytes) * 1024;
  }

  #get(path: string): Promise<Response> {
    return fetch(`${this.url}${path}`, { signal: AbortSignal.timeout(PROBE_TIMEOUT_MS) });
  }
}

/** Real processes of the server, over a RabbitMQ that the suite may break. */
export class Cluster {
  readonly #options: ClusterOptions;
  readonly #members = new Set<Member>();
  #started = 0;
  #closed = false;

  constructor(options: ClusterOptions) {
    this.#options = options;
    process.on("exit", this.#killAll);
  }

  /** Those that run, the oldest first. */
  members(service?: string): Member[] {
    return [...this.#members].filter(
      (member) => member.alive && (service === undefined || member.service === service),
    );
  }

  /** @throws if none of that service runs */
  oldest(service: string): Member {
    const [member] = this.members(service);
    if (!member) throw new Error(`No ${service} runs`);
    return member;
  }

  /** A process with one service; resolves when it is ready. */
  async start(service: string, options: StartOptions = {}): Promise<Member> {
    const member = await this.#spawn(service, options);
    const ready = await eventually(
      async () => !member.alive || (await member.ready()),
      READY_TIMEOUT_MS,
    ).catch(() => false);
    if (ready && member.alive) return member;
    throw new Error(`${member.name} ${member.alive ? "was not ready in time" : "ended before it was ready"}`);
  }

  /** Has exactly so many of each service, and none of the others. */
  async resize(roster: Readonly<Record<string, number>>): Promise<void> {
    const surplus = [...new Set(this.members().map(({ service }) => service))].flatMap((service) =>
      this.members(service).slice(roster[service] ?? 0),
    );
    await Promise.all(surplus.map((member) => member.stop()));
    const missing = Object.entries(roster).flatMap(([service, count]) =>
      Array.from({ length: Math.max(0, count - this.members(service).length) }, () => service),
    );
    await Promise.all(missing.map((service) => this.start(service)));
  }

  /**
   * Waits until every process is ready and has handled a request since the call.
   * @param press sends some requests at once: few, and the strategy need not choose a node that others are better than
   * @returns the names of those that have not in time: zombies
   */
  async idlers(timeoutMs: number, press: () => Promise<unknown>): Promise<string[]> {
    const before = new Map<Member, number>();
    const waiting = new Set(this.members());
    const end = performance.now() + timeoutMs;
    while (waiting.size > 0 && performance.now() < end) {
      for (const member of waiting) {
        try {
          const handled = await member.handled();
          const known = before.get(member);
          if (known === undefined) before.set(member, handled);
          else if (handled > known && (await member.ready())) waiting.delete(member);
        } catch {
          // No answer: still waiting.
        }
      }
      if (waiting.size > 0) await Promise.all([press(), delay(PROBE_INTERVAL_MS)]);
    }
    return [...waiting].map(({ name }) => name);
  }

  async stop(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.members().map((member) => member.kill()));
    process.off("exit", this.#killAll);
  }

  async #spawn(service: string, options: StartOptions): Promise<Member> {
    const { logs, without } = this.#options;
    const name = `${service}-${++this.#started}`;
    const { network } = options;
    const port = await freePort();
    const log = openSync(join(logs, `${name}.log`), "a");
    const entry = without ? "test/chaos/start.ts" : "bin/start.ts";
    const command = [process.execPath, entry];
    const [file = "", ...args] = network ? ["ip", "netns", "exec", network.namespace, ...command] : command;
    const child = spawn(file, args, {
      cwd: ROOT,
      env: this.#env(service, name, port, options),
      stdio: ["ignore", log, log],
      // A session of its own, as a pod has: it shares neither Ctrl-C nor the scheduler's group with the others.
      detached: true,
    });
    closeSync(log);
    const url = `http://${network?.nodeAddress ?? "127.0.0.1"}:${port}`;
    const member = new Member({ name, service, url, network }, child);
    this.#members.add(member);
    if (options.restarts) {
      child.once("exit", (code) => {
        if (code !== 0 && !this.#closed) void this.#spawn(service, options);
      });
    }
    return member;
  }

  #env(service: string, name: string, port: number, { env, network }: StartOptions): Env {
    const { env: common, rabbits, without } = this.#options;
    const first = this.#started % rabbits.length;
    const { PATH = "", HOME = "" } = process.env;
    const own: Env = {
      PATH,
      HOME,
      ...common,
      TRANSPORTER: [...rabbits.slice(first), ...rabbits.slice(0, first)].join(";"),
      HOST: network?.nodeAddress ?? "127.0.0.1",
      ...(service === "gateway" ? { PORT: String(port) } : { ADMIN_PORT: String(port) }),
      SERVICES: service,
      NODE_ID: name,
      ...env,
    };
    if (without === undefined) return own;
    const mechanism: Mechanism = MECHANISMS[without];
    return { ...own, ...mechanism.env?.(own), CHAOS_WITHOUT: without };
  }

  readonly #killAll = () => {
    this.#closed = true;
    for (const member of this.members()) member.signal("SIGKILL");
  };
}
