import { type ChildProcess, execFile, spawn } from "node:child_process";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { Agent, request } from "node:https";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { eventually } from "../../testkit/eventually.ts";
import { freePort } from "../../testkit/port.ts";

const START_TIMEOUT_MS = 120_000;
const STOP_TIMEOUT_MS = 10_000;

/** A node renews its lease four times in it. One that has not for the longer time is lost, however busy the machine. */
const LEASE_SECONDS = 8;
const LOST_SECONDS = 20;

/** An object of Kubernetes' API, as far as the tests look at it. */
export interface KubeObject {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly creationTimestamp: string;
    readonly deletionTimestamp?: string;
    readonly labels?: Readonly<Record<string, string>>;
  };
}

/** An answer of the API that is no success. */
export class ApiError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(`${status}: ${message}`);
    this.name = "ApiError";
    this.status = status;
  }
}

/** A Kubernetes control plane of our own: etcd, API server, controllers and scheduler. */
export interface ControlPlane {
  /** Files that the API server made itself: its certificate, for other servers of the test. */
  readonly certificate: { readonly cert: string; readonly key: string };
  /** Runs kubectl; resolves to what it wrote. Rejects with what it complained of. */
  kubectl(...args: string[]): Promise<{ readonly stdout: string; readonly stderr: string }>;
  /** Asks the API. @throws ApiError */
  api<T>(method: string, path: string, body?: unknown, type?: string): Promise<T>;
  list<T extends KubeObject>(path: string): Promise<readonly T[]>;
  /** Calls `seen` with every change below a path until the returned function is called. */
  watch<T>(path: string, seen: (type: string, object: T) => void): Promise<() => void>;
  /**
   * Plays the machines and kubelets of the nodes that a label selector matches, now and later.
   * @returns makes them fall silent, as machines do that are lost
   */
  kubelets(selector: string): Promise<() => void>;
  /** Ends all processes and deletes all files. */
  stop(): Promise<void>;
}

/** @param binaries folder with kube-apiserver, kube-controller-manager, kube-scheduler, kubectl and kwok */
export async function startControlPlane(binaries: string): Promise<ControlPlane> {
  const folder = await mkdtemp(join(tmpdir(), "kubernetes-"));
  const file = (name: string) => join(folder, name);
  const token = randomBytes(16).toString("hex");
  const [etcd, etcdPeers, apiserver, controllers, scheduler] = await Promise.all(
    Array.from({ length: 5 }, freePort),
  );
  const server = `https://127.0.0.1:${apiserver}`;
  const processes: ChildProcess[] = [];

  const start = (command: string, ...args: string[]): ChildProcess => {
    const child = spawn(command, args, { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
    const log = createWriteStream(file(`${command.split("/").at(-1)}.log`), { flags: "a" });
    child.stdout?.pipe(log);
    child.stderr?.pipe(log);
    processes.push(child);
    return child;
  };
  // Also when jest is ended before its afterAll.
  const kill = () => {
    for (const child of processes) child.kill("SIGKILL");
  };
  process.once("exit", kill);

  const { privateKey } = generateKeyPairSync("rsa", {
    modulusLength: 2048,
    publicKeyEncoding: { type: "spki", format: "pem" },
    privateKeyEncoding: { type: "pkcs1", format: "pem" },
  });
  await writeFile(file("accounts.key"), privateKey);
  await writeFile(file("tokens.csv"), `${token},test,test,system:masters\n`);
  await writeFile(file("kubeconfig"), JSON.stringify(kubeconfig(server, file("certs/apiserver.crt"), token)));

  start(
    await firstThatRuns(join(binaries, "etcd"), "etcd"),
    `--data-dir=${file("etcd")}`,
    `--listen-client-urls=http://127.0.0.1:${etcd}`,
    `--advertise-client-urls=http://127.0.0.1:${etcd}`,
    `--listen-peer-urls=http://127.0.0.1:${etcdPeers}`,
    `--initial-advertise-peer-urls=http://127.0.0.1:${etcdPeers}`,
    `--initial-cluster=default=http://127.0.0.1:${etcdPeers}`,
    "--unsafe-no-fsync",
  );
  start(
    join(binaries, "kube-apiserver"),
    `--etcd-servers=http://127.0.0.1:${etcd}`,
    "--bind-address=127.0.0.1",
    `--secure-port=${apiserver}`,
    `--cert-dir=${file("certs")}`,
    `--token-auth-file=${file("tokens.csv")}`,
    "--authorization-mode=RBAC",
    `--service-account-key-file=${file("accounts.key")}`,
    `--service-account-signing-key-file=${file("accounts.key")}`,
    "--service-account-issuer=https://kubernetes.default.svc",
    "--service-cluster-ip-range=10.96.0.0/16",
    // Its address is loopback, which no Service may point to.
    "--endpoint-reconciler-type=none",
    // Debian's etcd is too old to stream lists; told so only by errors, KWOK asks again and again.
    "--feature-gates=WatchList=false",
  );
  const agent = new Agent({ keepAlive: true });
  const ask = async (method: string, path: string, body?: unknown, type = "application/json") => {
    const ca = await readFile(file("certs/apiserver.crt"));
    const outgoing = request(`${server}${path}`, {
      method,
      agent,
      ca,
      headers: { authorization: `Bearer ${token}`, ...(body ? { "content-type": type } : {}) },
    });
    outgoing.end(body ? JSON.stringify(body) : undefined);
    const [response] = (await once(outgoing, "response")) as [IncomingMessage];
    return response;
  };
  const api = async <T>(...args: Parameters<typeof ask>): Promise<T> => {
    const response = await ask(...args);
    const text = await textOf(response);
    const { statusCode = 0 } = response;
    if (statusCode >= 300) throw new ApiError(statusCode, text);
    return (text.startsWith("{") ? JSON.parse(text) : text) as T;
  };
  await eventually(() => api("GET", "/readyz").then(() => true), START_TIMEOUT_MS);

  // What is minutes in a cluster is seconds here.
  start(
    join(binaries, "kube-controller-manager"),
    `--kubeconfig=${file("kubeconfig")}`,
    "--bind-address=127.0.0.1",
    `--secure-port=${controllers}`,
    `--service-account-private-key-file=${file("accounts.key")}`,
    "--leader-elect=false",
    "--kube-api-qps=1000",
    "--kube-api-burst=2000",
    "--horizontal-pod-autoscaler-sync-period=1s",
    "--horizontal-pod-autoscaler-initial-readiness-delay=1s",
    "--horizontal-pod-autoscaler-cpu-initialization-period=1s",
    "--node-monitor-period=1s",
    `--node-monitor-grace-period=${LOST_SECONDS}s`,
    "--node-eviction-rate=100",
  );
  start(
    join(binaries, "kube-scheduler"),
    `--kubeconfig=${file("kubeconfig")}`,
    "--bind-address=127.0.0.1",
    `--secure-port=${scheduler}`,
    "--leader-elect=false",
    "--kube-api-qps=1000",
    "--kube-api-burst=2000",
  );
  return {
    certificate: { cert: file("certs/apiserver.crt"), key: file("certs/apiserver.key") },

    kubectl: (...args) =>
      new Promise((done, failed) => {
        execFile(
          join(binaries, "kubectl"),
          [`--kubeconfig=${file("kubeconfig")}`, `--cache-dir=${file("cache")}`, ...args],
          { maxBuffer: 1e8 },
          (error, stdout, stderr) =>
            error ? failed(Object.assign(error, { stdout })) : done({ stdout, stderr }),
        );
      }),

    api,

    list: async (path) => (await api<{ items: never[] }>("GET", path)).items,

    watch: async (path, seen) => {
      const response = await ask("GET", `${path}${path.includes("?") ? "&" : "?"}watch=true`);
      createInterface(response).on("line", (line) => {
        const { type, object } = JSON.parse(line);
        seen(type, object);
      });
      // Ours when we end it.
      response.on("error", () => undefined);
      return () => response.destroy();
    },

    kubelets: async (selector) => {
      const child = start(
        join(binaries, "kwok"),
        `--kubeconfig=${file("kubeconfig")}`,
        `--config=${resolve(import.meta.dirname, "stages.yaml")}`,
        `--manage-nodes-with-label-selector=${selector}`,
        `--node-lease-duration-seconds=${LEASE_SECONDS}`,
        `--server-address=127.0.0.1:${await freePort()}`,
      );
      return () => child.kill("SIGKILL");
    },

    stop: async () => {
      agent.destroy();
      // In reverse: who writes ends before who is written to.
      for (const child of processes.toReversed()) await ended(child);
      process.removeListener("exit", kill);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

function kubeconfig(server: string, certificate: string, token: string) {
  const name = "test";
  return {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name, cluster: { server, "certificate-authority": certificate } }],
    users: [{ name, user: { token } }],
    contexts: [{ name, context: { cluster: name, user: name } }],
    "current-context": name,
  };
}

/** The file at `path` if it can be run, else the command of that name. */
function firstThatRuns(path: string, command: string): Promise<string> {
  return new Promise((done) => {
    execFile(path, ["--version"], (error) => done(error ? command : path));
  });
}

async function textOf(response: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of response.setEncoding("utf8")) text += chunk;
  return text;
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, "exit");
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), STOP_TIMEOUT_MS);
  await exit;
  clearTimeout(timer);
}
