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
model nodes with engines that sleep, a fixed number of callers, a RabbitMQ of its own.

    npm run scale
    npm run scale -- --nodes 10,50 --seconds 5

  --nodes N,N,…    model nodes                      10,50,100,200
  --callers N      gateways and dispatchers         4
  --seconds N      of every measurement             10
`;

/** Milliseconds of one prediction, one after the other on each node: long, so that the machine is not what is measured. */
const SERVICE_MS = 500;
/** Calls kept open for each node: of two that the strategy looks at, one is seldom without work. */
const IN_FLIGHT = 4;
/** Of the kernel's clock in /proc/<pid>/stat: USER_HZ, 100 on Linux. */
const TICKS_PER_SECOND = 100;

const { values } = parseArgs({
  options: {
    nodes: { type: "string", default: "10,50,100,200" },
    callers: { type: "string", default: "4" },
    seconds: { type: "string", default: "10" },
    help: { type: "boolean", default: false },
  },
});

/** One line of the table. */
interface Row {
  readonly nodes: number;
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
  /** Calls answered, a second, as a share of what the engines can do. */
  readonly share: number;
  readonly failed: number;
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

async function measure(nodes: number, callers: number, seconds: number): Promise<Row> {
  const metricsPort = await freePort();
  const rabbit = await startRabbit({ metricsPort });
  const [model, caller] = [new Worker(), new Worker()];
  try {
    const common = { url: rabbit.url, namespace: "scale", serviceMs: SERVICE_MS };
    const setup = (role: Setup["role"], count: number): Order => ({
      do: "start",
      setup: { ...common, role, count },
    });
    await Promise.all([model.ask(setup("node", nodes)), caller.ask(setup("caller", callers))]);
    const converged = () =>
      Promise.all([model, caller].map((worker) => worker.ask({ do: "converged", nodes })));
    await converged();
    await delay(3000);

    const look = async () => ({
      at: performance.now(),
      ...(await scrape(metricsPort)),
      rabbit: await cpuOf(rabbit),
      node: (await model.ask({ do: "cpu" })).value,
      caller: (await caller.ask({ do: "cpu" })).value,
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

    await caller.ask({ do: "call", inFlight: IN_FLIGHT * nodes, ms: 2000 });
    const { value, failed } = await caller.ask({
      do: "call",
      inFlight: IN_FLIGHT * nodes,
      ms: seconds * 1000,
    });
    return {
      nodes,
      published: rate("published"),
      delivered: rate("delivered"),
      bytes: rate("bytes"),
      rabbitCores: rate("rabbit"),
      nodeCores: rate("node") / nodes,
      callerCores: rate("caller") / callers,
      convergence,
      share: value / seconds / (nodes * (1000 / SERVICE_MS)),
      failed,
    };
  } finally {
    await Promise.all([model.end(), caller.end()]);
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

function print(rows: readonly Row[], callers: number): void {
  console.log(
    "| Model nodes | Messages in /s | Messages out /s | KB in /s | RabbitMQ, cores | A node, cores | A caller, cores | All back after, s | Work done of N× |",
  );
  console.log("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
  for (const row of rows) {
    const cells = [
      row.nodes,
      row.published.toFixed(0),
      row.delivered.toFixed(0),
      (row.bytes / 1e3).toFixed(1),
      row.rabbitCores.toFixed(2),
      row.nodeCores.toFixed(4),
      row.callerCores.toFixed(3),
      row.convergence.toFixed(1),
      `${row.share.toFixed(2)}${row.failed > 0 ? `, ${row.failed} failed` : ""}`,
    ];
    console.log(`| ${cells.join(" | ")} |`);
  }
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

if (values.help) console.log(HELP);
else {
  const [callers, seconds] = [Number(values.callers), Number(values.seconds)];
  const rows: Row[] = [];
  for (const nodes of values.nodes.split(",").map(Number)) rows.push(await measure(nodes, callers, seconds));
  print(rows, callers);
}
