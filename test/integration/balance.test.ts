import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, platform, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { ServiceBroker } from "moleculer";
import {
  createBroker,
  deleteTopology,
  type NodeProcess,
  type NodeSettings,
  startNode,
} from "../../bench/balance-cluster.ts";
import { loadOf } from "../../lib/load/load.ts";
import type { LoadReport, NodeLoad } from "../../lib/load/table.ts";
import { brokerUrl, releaseBroker } from "../../testkit/rabbitmq.ts";

/** Real processes over the real RabbitMQ with Moleculer's own transporter: nothing but the strategy helps here. */
const NAMESPACE = `balance-${process.pid}-${Date.now().toString(36)}`;

let url: string;
let caller: ServiceBroker;
let nodes: NodeProcess[] = [];
const helpers: ChildProcess[] = [];
const folders: string[] = [];
const used = new Set(["caller"]);

function settings(nodeID: string, more: Partial<NodeSettings> = {}): NodeSettings {
  // No slow start, except where it is what is tested: nodes of one test do not start at the very same moment.
  const strategyOptions = { rampMs: 0 };
  const common = {
    namespace: NAMESPACE,
    url,
    strategy: "LoadAware",
    transporter: "stock",
    prefetch: 64,
  } as const;
  return { ...common, strategyOptions, nodeID, ...more };
}

async function start(more: NodeSettings, cpu?: number): Promise<NodeProcess> {
  used.add(more.nodeID);
  const node = await startNode(more, cpu);
  nodes.push(node);
  return node;
}

async function startCaller(more: Partial<NodeSettings> = {}): Promise<void> {
  caller = createBroker(settings("caller", more));
  await caller.start();
}

beforeAll(async () => {
  url = await brokerUrl();
}, 120_000);

afterEach(async () => {
  for (const helper of helpers.splice(0)) helper.kill("SIGKILL");
  await caller.stop();
  await Promise.all(nodes.map((node) => node.stop()));
  nodes = [];
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

afterAll(async () => {
  await deleteTopology(url, NAMESPACE, [...used]);
  await releaseBroker();
}, 60_000);

function known(node: string): NodeLoad | undefined {
  return loadOf(caller).table.get(node);
}

/** Resolves when it is so; the test's own time limit is the bound. */
async function eventually(isSo: () => boolean): Promise<void> {
  while (!isSo()) await delay(20);
}

function reported(isSo: (report: LoadReport) => boolean, ...ids: readonly string[]): Promise<void> {
  return eventually(() =>
    ids.every((id) => {
      const report = known(id)?.report;
      return report !== undefined && isSo(report);
    }),
  );
}

async function predict(): Promise<string> {
  const { node } = await caller.call<{ node: string }, object>("model.predict", {});
  return node;
}

/** Answers by node, of this many requests from as many clients as `clients`. */
async function drive(requests: number, clients: number): Promise<Readonly<Record<string, number>>> {
  const counts: Record<string, number> = Object.fromEntries(nodes.map(({ nodeID }) => [nodeID, 0]));
  let left = requests;
  const client = async () => {
    while (left-- > 0) {
      const node = await predict();
      counts[node] = (counts[node] ?? 0) + 1;
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  return counts;
}

/** A v2 cgroup with 1 GiB, of which this share is in use. */
function cgroup(memory: number): string {
  const root = mkdtempSync(join(tmpdir(), "cgroup-"));
  folders.push(root);
  const files = {
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
    "sys/fs/cgroup/memory.max": `${2 ** 30}\n`,
    "sys/fs/cgroup/memory.current": `${Math.round(memory * 2 ** 30)}\n`,
  };
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return root;
}

test("equal nodes share the work", async () => {
  await Promise.all(["even-1", "even-2"].map((id) => start(settings(id, { serviceMs: 5 }))));
  await startCaller();
  await reported(() => true, "even-1", "even-2");
  const counts = await drive(400, 8);
  for (const count of Object.values(counts)) expect(count).toBeGreaterThan(100);
}, 60_000);

test("a node near its memory limit gets nothing while another has room", async () => {
  const [full, free] = [cgroup(0.95), cgroup(0.3)];
  await Promise.all([
    start(settings("memory-full", { serviceMs: 5, root: full })),
    start(settings("memory-free", { serviceMs: 5, root: free })),
  ]);
  await startCaller();
  await reported(({ memory }) => memory > 0.9, "memory-full");
  await reported(({ memory }) => memory > 0.2 && memory < 0.4, "memory-free");
  expect(await drive(300, 8)).toEqual({ "memory-full": 0, "memory-free": 300 });
}, 60_000);

const pinnable = platform() === "linux" && availableParallelism() >= 2;

(pinnable ? test : test.skip)(
  "a node whose CPU a neighbour takes gets clearly fewer requests",
  async () => {
    const work = { rounds: 2000, serviceMs: 2 };
    await Promise.all([
      start(settings("cpu-shared", work), 0),
      start(settings("cpu-own-1", work), 1),
      start(settings("cpu-own-2", work), 1),
    ]);
    // So many neighbours on the first node's only CPU show even on a machine that is busy anyway.
    for (let i = 0; i < 8; i++) {
      helpers.push(spawn("taskset", ["-c", "0", process.execPath, "-e", "for (;;);"], { stdio: "ignore" }));
    }
    await startCaller();
    await reported(() => true, "cpu-shared", "cpu-own-1", "cpu-own-2");
    await drive(200, 6);
    const counts = await drive(600, 6);
    // A third each is what it would get unseen: as much as the others do on average.
    const others = (600 - (counts["cpu-shared"] ?? 0)) / 2;
    expect(counts["cpu-shared"]).toBeLessThan(0.7 * others);
  },
  120_000,
);

test("a stopped node gets a handful of requests and then no more", async () => {
  await Promise.all(["stuck", "well-1", "well-2"].map((id) => start(settings(id, { serviceMs: 2 }))));
  await startCaller();
  await reported(() => true, "stuck", "well-1", "well-2");
  const { child } = nodes.find(({ nodeID }) => nodeID === "stuck") ?? {};
  child?.kill("SIGSTOP");

  // As fast as clients come, whether or not earlier ones were answered. Round robin would give it every third.
  const answers: Promise<string | undefined>[] = [];
  for (let i = 0; i < 450; i++) {
    answers.push(predict().catch(() => undefined));
    await delay(10);
  }
  expect(known("stuck")?.inFlight ?? 0).toBeLessThanOrEqual(15);
  child?.kill("SIGCONT");
  const answered = await Promise.all(answers);
  expect(answered.filter((node) => node?.startsWith("well")).length).toBeGreaterThanOrEqual(435);
}, 60_000);

test("a node that has just started is not flooded, and gets its share in the end", async () => {
  const work = { serviceMs: 10 };
  await Promise.all(["old-1", "old-2"].map((id) => start(settings(id, work))));
  // The old ones are warm before the new one comes.
  await startCaller({ strategyOptions: { rampMs: 3000 } });
  await reported(() => true, "old-1", "old-2");
  await eventually(() => performance.now() - (known("old-1")?.since ?? Number.POSITIVE_INFINITY) > 3000);

  let busy = true;
  const order: string[] = [];
  const client = async () => {
    while (busy) order.push(await predict());
  };
  const clients = Array.from({ length: 24 }, client);
  const newsIn = (from: number) => order.slice(from).filter((node) => node === "new").length;
  try {
    await start(settings("new", work));
    await eventually(() => order.includes("new"));
    const first = order.indexOf("new");
    await eventually(() => order.length > first + 60);
    // As many as the others would be eight. (That the ramp keeps it this low is told in the unit tests.)
    const early = known("new")?.inFlight ?? Number.POSITIVE_INFINITY;
    expect(early).toBeLessThan(6);
    // A third would be its share.
    await eventually(() => newsIn(order.length - 150) > 30);
  } finally {
    busy = false;
    await Promise.all(clients);
  }
}, 120_000);

test("a node that drains says so at once and gets nothing more", async () => {
  await Promise.all(["draining", "staying"].map((id) => start(settings(id, { serviceMs: 5 }))));
  await startCaller();
  await reported(() => true, "draining", "staying");
  nodes.find(({ nodeID }) => nodeID === "draining")?.child.send("drain");
  await reported(({ draining }) => draining, "draining");
  expect(await drive(100, 8)).toEqual({ draining: 0, staying: 100 });
}, 60_000);
