import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { freePort } from "../testkit/port.ts";
import { type Rabbit, startRabbit } from "../testkit/rabbitmq.ts";
import type { Order, Report, Setup } from "./scale-process.ts";

const HELP = `What a cluster costs that does nothing but stay together, how it comes back, and whether it does N times the work:
model nodes with engines that sleep, callers as a gateway is one, each a process of its own, and a RabbitMQ of its own.

    npm run scale
    npm run scale -- --nodes 10,50 --seconds 5

  --nodes N,N,…    model nodes                      10,50,100,200
  --callers N,N,…  the last with each of the above,
                   the others with the last of them 1,2,4
  --seconds N      of every measurement             10
`;

/** Milliseconds of one prediction, one after the other on each node: long, so that the machine is not what is measured. */
const SERVICE_MS = 500;
/** Calls kept open for each node: of two that the strategy looks at, one is seldom without work. */
const IN_FLIGHT = 8;
/** Until what was brought all at once is worked off, twice, milliseconds: what is measured is how it goes on. */
const WARM_UP_MS = 2 * IN_FLIGHT * SERVICE_MS;
/** Of the kernel's clock in /proc/<pid>/stat: USER_HZ, 100 on Linux. */
const TICKS_PER_SECOND = 100;

const { values } = parseArgs({
  options: {
    nodes: { type: "string", default: "10,50,100,200" },
    callers: { type: "string", default: "1,2,4" },
    seconds: { type: "string", default: "10" },
    help: { type: "boolean", default: false },
  },
});

/** One line of the table. */
interface Row {
  readonly nodes: number;
  readonly callers: number;
  /** Idle, a second: messages that RabbitMQ took and gave, bytes it took, cores it used. */
  readonly published: number;
  readonly delivered: number;
  readonly bytes: number;
  readonly rabbitCores: number;
  /** Idle: of one model node, and of one caller. */
  readonly nodeCores: number;
  readonly callerCores: number;
  /** Seconds until all are connected and known again, after every connection was lost at once. */
  readonly convergence: number;
  /** Calls answered, a second, as a share of what the engines can do, one after the other. */
  readonly share: number;
  /** What one prediction took, milliseconds: more than `SERVICE_MS` as far as the machine's timers are late. */
  readonly engineMs: number;
  readonly failed: number;
  /** Calls answered, a second, and cores of one caller and of RabbitMQ meanwhile. */
  readonly calls: number;
  readonly busyCallerCores: number;
  readonly busyRabbitCores: number;
}

class Worker {
  readonly #child: ChildProcess = fork(resolve(import.meta.dirname, "scale-process.ts"));

  async ask(order: Order): Promise<Report> {
    this.#child.send(order);
    const [report] = (await once(this.#child, "message")) as [Report];
    return report;
  }

  async end(): Promise<void> {
    const gone = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await gone;
  }
}

async function scrape(port: number): Promise<{ published: number; delivered: number; bytes: number }> {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  const sum = (name: RegExp) =>
    [...text.matchAll(name)].reduce((total, [, value]) => total + Number(value), 0);
  return {
    published: sum(/^rabbitmq_global_messages_received_total\{.*\} (\S+)$/gm),
    delivered: sum(
      /^rabbitmq_global_messages_delivered_(?:consume_auto_ack|consume_manual_ack)_total\{.*\} (\S+)$/gm,
    ),
    bytes: sum(/^rabbitmq_connection_incoming_bytes_total (\S+)$/gm),
  };
}

async function cpuOf(rabbit: Rabbit): Promise<number> {
  const pid = (await rabbit.ctl("eval", "list_to_integer(os:getpid()).")).trim();
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  // After the name in brackets: state is the third field; user and system time are the 14th and 15th (proc(5)).
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** Cores that RabbitMQ uses, some time from now. */
async function coresDuring(rabbit: Rabbit, waitMs: number, seconds: number): Promise<number> {
  await delay(waitMs);
  const before = await cpuOf(rabbit);
  await delay(seconds * 1000);
  return ((await cpuOf(rabbit)) - before) / seconds;
}

function sum(reports: readonly Report[], key: keyof Report): number {
  return reports.reduce((total, report) => total + report[key], 0);
}

async function measure(nodes: number, callers: number, seconds: number): Promise<Row> {
  const metricsPort = await freePort();
  const rabbit = await startRabbit({ metricsPort });
  const model = new Worker();
  const asking = Array.from({ length: callers }, () => new Worker());
  try {
    const common = { url: rabbit.url, namespace: "scale", serviceMs: SERVICE_MS };
    const setup = (role: Setup["role"], first: number, count: number): Order => ({
      do: "start",
      setup: { ...common, role, first, count },
    });
    await Promise.all([
      model.ask(setup("node", 0, nodes)),
      ...asking.map((caller, i) => caller.ask(setup("caller", i, 1))),
    ]);
    const converged = () =>
      Promise.all([model, ...asking].map((worker) => worker.ask({ do: "converged", nodes })));
    const callerCpu = async () =>
      sum(await Promise.all(asking.map((each) => each.ask({ do: "figures" }))), "cpu");
    await converged();
    await delay(3000);

    const look = async () => ({
      at: performance.now(),
      ...(await scrape(metricsPort)),
      rabbit: await cpuOf(rabbit),
      node: (await model.ask({ do: "figures" })).cpu,
      caller: await callerCpu(),
    });
    const before = await look();
    await delay(seconds * 1000);
    const after = await look();
    const rate = (key: "published" | "delivered" | "bytes" | "rabbit" | "node" | "caller") =>
      (after[key] - before[key]) / ((after.at - before.at) / 1000);

    const lost = performance.now();
    await rabbit.ctl("close_all_connections", "--vhost", "/", "scale");
    await converged();
    const convergence = (performance.now() - lost) / 1000;

    const inFlight = Math.ceil((IN_FLIGHT * nodes) / callers);
    const [busyRabbit, reports] = await Promise.all([
      coresDuring(rabbit, WARM_UP_MS, seconds),
      Promise.all(
        asking.map((each) => each.ask({ do: "call", inFlight, warmUpMs: WARM_UP_MS, ms: seconds * 1000 })),
      ),
    ]);
    const calls = sum(reports, "answered") / seconds;
    const { engineMs } = await model.ask({ do: "figures" });
    return {
      nodes,
      callers,
      published: rate("published"),
      delivered: rate("delivered"),
      bytes: rate("bytes"),
      rabbitCores: rate("rabbit"),
      nodeCores: rate("node") / nodes,
      callerCores: rate("caller") / callers,
      convergence,
      share: calls / (nodes * (1000 / engineMs)),
      engineMs,
      failed: sum(reports, "failed"),
      calls,
      busyCallerCores: sum(reports, "cpu") / seconds / callers,
      busyRabbitCores: busyRabbit,
    };
  } finally {
    await Promise.all([model, ...asking].map((each) => each.end()));
    await rabbit.remove();
  }
}

/** The straight line through the points, and how much of their spread it explains. */
function straightLine(points: readonly (readonly [x: number, y: number])[]) {
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  const [mx, my] = [mean(points.map(([x]) => x)), mean(points.map(([, y]) => y))];
  const slope =
    points.reduce((sum, [x, y]) => sum + (x - mx) * (y - my), 0) /
    points.reduce((sum, [x]) => sum + (x - mx) ** 2, 0);
  const at = (x: number) => my + slope * (x - mx);
  const spread = points.reduce((sum, [, y]) => sum + (y - my) ** 2, 0);
  const left = points.reduce((sum, [x, y]) => sum + (y - at(x)) ** 2, 0);
  return { slope, at, r2: spread === 0 ? 1 : 1 - left / spread };
}

function printTable(columns: readonly string[], rows: readonly (readonly (string | number)[])[]): void {
  for (const cells of [columns, columns.map(() => "---"), ...rows]) console.log(`| ${cells.join(" | ")} |`);
}

/** What it costs to stay together. */
function printIdle(rows: readonly Row[], callers: number): void {
  printTable(
    [
      "Model nodes",
      "Messages in /s",
      "Messages out /s",
      "KB in /s",
      "RabbitMQ, cores",
      "A node, cores",
      "A caller, cores",
      "All back after, s",
    ],
    rows.map((row) => [
      row.nodes,
      row.published.toFixed(0),
      row.delivered.toFixed(0),
      (row.bytes / 1e3).toFixed(1),
      row.rabbitCores.toFixed(2),
      row.nodeCores.toFixed(4),
      row.callerCores.toFixed(3),
      row.convergence.toFixed(1),
    ]),
  );
  if (rows.length < 2) return;
  const out = straightLine(rows.map(({ nodes, delivered }) => [nodes, delivered]));
  const cores = straightLine(rows.map(({ nodes, rabbitCores }) => [nodes, rabbitCores]));
  console.log(
    `\nWith ${callers} callers: ${out.slope.toFixed(2)} messages out a second for each node (a straight line explains ` +
      `${(100 * out.r2).toFixed(1)} %), ${(1000 * cores.slope).toFixed(2)} thousandths of a core of RabbitMQ ` +
      `(${(100 * cores.r2).toFixed(1)} %).\nThat is ${out.at(1000).toFixed(0)} messages a second and ` +
      `${cores.at(1000).toFixed(1)} cores of RabbitMQ at 1,000 nodes that have nothing to do.`,
  );
}

/** Whether N nodes do N times the work, and how many callers that takes. */
function printBusy(rows: readonly Row[]): void {
  printTable(
    [
      "Model nodes",
      "Callers",
      "A prediction, ms",
      "Calls /s",
      "Work done of N×",
      "A caller, cores",
      "A caller's core is full at, calls /s",
      "RabbitMQ, cores",
    ],
    rows.map((row) => [
      row.nodes,
      row.callers,
      row.engineMs.toFixed(0),
      row.calls.toFixed(0),
      `${row.share.toFixed(2)}${row.failed > 0 ? `, ${row.failed} failed` : ""}`,
      row.busyCallerCores.toFixed(2),
      (row.calls / row.callers / row.busyCallerCores).toFixed(0),
      row.busyRabbitCores.toFixed(2),
    ]),
  );
}

if (values.help) console.log(HELP);
else {
  const seconds = Number(values.seconds);
  const [sizes, callers] = [values.nodes, values.callers].map((list) => list.split(",").map(Number)) as [
    number[],
    number[],
  ];
  const [most, all] = [sizes.at(-1) ?? 0, callers.at(-1) ?? 0];
  const rows: Row[] = [];
  for (const nodes of sizes) rows.push(await measure(nodes, all, seconds));
  const fewer: Row[] = [];
  for (const few of callers.slice(0, -1)) fewer.push(await measure(most, few, seconds));
  printIdle(rows, all);
  console.log();
  printBusy([...fewer, ...rows].sort((a, b) => a.nodes - b.nodes || a.callers - b.callers));
}
