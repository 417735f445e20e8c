import { setTimeout as delay } from "node:timers/promises";
import type { ServiceBroker } from "moleculer";
import { commandOptions } from "../bin/cli.ts";
import { brokerUrl, releaseBroker } from "../testkit/rabbitmq.ts";
import {
  createBroker,
  deleteTopology,
  type NodeProcess,
  type NodeSettings,
  startNode,
} from "./balance-cluster.ts";

/*
 * Three model nodes, one slowed four times, under a fixed number of clients: how each way of balancing copes. Every
 * way gets fresh processes, one after the other, in this same run.
 *
 * An open loop would show the others' queues growing for as long as it runs, and so any ratio one likes; with a fixed
 * number of clients a way that feeds the slow node is paid for in throughput and latency, and the figures settle.
 */

const USAGE = `
npm run bench:balance -- [options]

Three model nodes, one slowed four times, under a fixed number of clients: how each way of balancing copes.

  --seconds N    length of one measurement (5)
  --clients N    clients (24)
  --json         one JSON object instead of a table
`;
const values = commandOptions(USAGE, {
  json: { type: "boolean", default: false },
  seconds: { type: "string", default: "5" },
  clients: { type: "string", default: "24" },
});

const url = await brokerUrl();
const SERVICE_MS = 20;
const SLOWDOWN = 4;
const WARM_UP_MS = 2000;
/** Moleculer announces a node a second before it has declared its shared queues; requests until then are lost. */
const SUBSCRIBED_MS = 1500;
const PREFETCH = 64;
/** What three such nodes can do together: the bound no balancing exceeds. */
const BOUND_PER_SECOND = (1000 / SERVICE_MS) * (2 + 1 / SLOWDOWN);

type Way = Pick<NodeSettings, "strategy" | "transporter" | "prefetch"> & { readonly name: string };

const OURS = "LoadAware";
const BASELINE = "RoundRobin";
const WAYS: readonly Way[] = [
  { name: OURS, strategy: "LoadAware", transporter: "ours", prefetch: PREFETCH },
  { name: "LoadAware, stock transporter", strategy: "LoadAware", transporter: "stock", prefetch: PREFETCH },
  { name: BASELINE, strategy: "RoundRobin", transporter: "stock", prefetch: PREFETCH },
  { name: "RoundRobin, our transporter", strategy: "RoundRobin", transporter: "ours", prefetch: PREFETCH },
  { name: "CpuUsage", strategy: "CpuUsage", transporter: "stock", prefetch: PREFETCH },
  { name: "Latency", strategy: "Latency", transporter: "stock", prefetch: PREFETCH },
  { name: "shared queue", strategy: "none", transporter: "stock", prefetch: PREFETCH },
  // The best a shared queue can do, where a node can never have a batch.
  { name: "shared queue, prefetch 1", strategy: "none", transporter: "stock", prefetch: 1 },
];

interface Figures {
  readonly name: string;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Part of all answers that came from the slow node. */
  readonly slowShare: number;
  /** Requests without an answer: on a machine that is too busy, heartbeats are late and nodes are given up. */
  readonly failed: number;
}

/** The node that answered; after a failure, `undefined` and a pause. */
async function predict(caller: ServiceBroker): Promise<string | undefined> {
  try {
    const { node } = await caller.call<{ node: string }, object>("model.predict", {});
    return node;
  } catch {
    await delay(50);
    return undefined;
  }
}

async function measure({ name, ...way }: Way, index: number): Promise<Figures> {
  const namespace = `bench-balance-${process.pid}-${index}`;
  const common = { ...way, namespace, url };
  const ids = ["fast-1", "fast-2", "slow"];
  const caller = createBroker({ ...common, nodeID: "caller" });
  const nodes: NodeProcess[] = [];
  try {
    const starting = ids.map((nodeID) =>
      startNode({ ...common, nodeID, serviceMs: nodeID === "slow" ? SERVICE_MS * SLOWDOWN : SERVICE_MS }),
    );
    nodes.push(...(await Promise.all(starting)));
    await caller.start();
    await caller.waitForServices("model");
    await delay(SUBSCRIBED_MS);
    const latencies: number[] = [];
    let answers = 0;
    let slow = 0;
    let failed = 0;
    const from = performance.now() + WARM_UP_MS;
    const to = from + Number(values.seconds) * 1000;
    const client = async () => {
      for (let sent = performance.now(); sent < to; sent = performance.now()) {
        const node = await predict(caller);
        if (node === undefined) {
          failed++;
          continue;
        }
        const answered = performance.now();
        // Latency by when it was sent: the slowest answers come after the end.
        if (sent >= from) latencies.push(answered - sent);
        if (answered < from || answered > to) continue;
        answers++;
        if (node === "slow") slow++;
      }
    };
    await Promise.all(Array.from({ length: Number(values.clients) }, client));
    latencies.sort((a, b) => a - b);
    const percentile = (share: number) => latencies[Math.ceil(share * latencies.length) - 1] ?? Number.NaN;
    return {
      name,
      perSecond: answers / Number(values.seconds),
      p50Ms: percentile(0.5),
      p99Ms: percentile(0.99),
      slowShare: slow / answers,
      failed,
    };
  } finally {
    await caller.stop();
    await Promise.all(nodes.map((node) => node.stop()));
    await deleteTopology(url, namespace, [...ids, "caller"]);
  }
}

function table(rows: readonly Figures[], baseline: Figures): string {
  const head = ["", "req/s", "of bound", "p50 ms", "p99 ms", "slow node", "failed", "throughput ×", "p99 ×"];
  const lines = rows.map((row) => [
    row.name,
    row.perSecond.toFixed(0),
    (row.perSecond / BOUND_PER_SECOND).toFixed(2),
    row.p50Ms.toFixed(0),
    row.p99Ms.toFixed(0),
    `${(row.slowShare * 100).toFixed(0)} %`,
    String(row.failed),
    (row.perSecond / baseline.perSecond).toFixed(2),
    (row.p99Ms / baseline.p99Ms).toFixed(2),
  ]);
  const widths = head.map((cell, column) =>
    Math.max(...[head, ...lines].map((line) => (line[column] ?? cell).length)),
  );
  const format = (line: readonly string[]) =>
    line.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join("  ");
  return [head, ...lines].map(format).join("\n");
}

const rows: Figures[] = [];
for (const [index, way] of WAYS.entries()) {
  process.stderr.write(`${index + 1}/${WAYS.length} ${way.name}\n`);
  rows.push(await measure(way, index));
}
await releaseBroker();
const ours = rows.find(({ name }) => name === OURS);
const baseline = rows.find(({ name }) => name === BASELINE);
if (!ours || !baseline) throw new Error(`Expected ${OURS} and ${BASELINE} among the ways measured`);

const bars = { p99OfRoundRobin: 0.5, throughputOfRoundRobin: 1.2 };
const measured = {
  p99OfRoundRobin: ours.p99Ms / baseline.p99Ms,
  throughputOfRoundRobin: ours.perSecond / baseline.perSecond,
};
const met =
  measured.p99OfRoundRobin <= bars.p99OfRoundRobin &&
  measured.throughputOfRoundRobin >= bars.throughputOfRoundRobin;
console.log(
  `Three nodes of ${SERVICE_MS} ms, one of them ${SLOWDOWN}× slower; ${values.clients} clients; × against ${BASELINE}\n`,
);
console.log(table(rows, baseline));
console.log(
  `\np99 ${measured.p99OfRoundRobin.toFixed(2)} × (bar ≤ ${bars.p99OfRoundRobin}), throughput ` +
    `${measured.throughputOfRoundRobin.toFixed(2)} × (bar ≥ ${bars.throughputOfRoundRobin}): ${met ? "met" : "MISSED"}`,
);
if (values.json) console.log(JSON.stringify({ bench: "balance", rows, measured, bars, met }));
process.exitCode = met ? 0 : 1;
