import { existsSync, readdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { commandOptions, misused } from "../bin/cli.ts";
import type { ImageInput } from "../lib/kinds/image/input.ts";
import { ImagePipeline } from "../lib/kinds/image/pipeline.ts";
import { wholeCores } from "../lib/load/cgroup.ts";
import { latestVersion } from "../lib/models/manifest.ts";
import { Model } from "../lib/models/model.ts";
import { median } from "../testkit/percentile.ts";
import { startServer, type TestServer } from "../testkit/server.ts";
import { stealMeter } from "../testkit/steal.ts";
import { generatePhotos, measureDecode } from "./decode.ts";
import { EngineMeter, type EngineSetting } from "./engine.ts";
import { HopsMeter } from "./hops.ts";
import { drive, type LoadResult } from "./load.ts";
import { comparePeer, peerVerdict, printPeer } from "./peer.ts";
import { writeResnet50 } from "./resnet50.ts";
import { verdict } from "./verdict.ts";

/**
 * Throughput and latency over HTTP, beside what the two parts it is made of can do alone:
 *
 *     bound = 1 / (1 / decode + 1 / engine)      images a second, both with all cores, each at its best setting
 *
 * Over RabbitMQ a third part counts, too: the same messages through three processes over bare amqplib, without any
 * work. The load generator runs on the same cores and its time counts against us. Machines drift, so the parts are measured
 * before and after each load, which is compared with their mean; what is printed is the median of the rounds.
 */
const USAGE = `
npm run bench -- [options]

Throughput and latency over HTTP, beside what decoding and engine can do alone.

  --model pets|resnet50     the model (pets)
  --transport none|amqp     one process, or three over the RabbitMQ at TRANSPORTER (none)
  --photos DIR              photos to send instead of made ones
  --rounds N                rounds, of which the median is printed (5)
  --seconds N               length of one measurement (6)
  --checkout DIR            with the servers of another checkout, to compare commits
  --peer plain              beside a plain server, with one question and with two (peer.ts)
  --json                    one JSON object instead of a table
`;
const values = commandOptions(USAGE, {
  model: { type: "string", default: "pets" },
  transport: { type: "string", default: "none" },
  photos: { type: "string" },
  rounds: { type: "string", default: "5" },
  seconds: { type: "string", default: "6" },
  checkout: { type: "string" },
  peer: { type: "string" },
  json: { type: "boolean", default: false },
});
const rounds = positive("rounds");
const seconds = positive("seconds");
const ROOT = resolve(import.meta.dirname, "..");
const RABBITMQ_URL = process.env["TRANSPORTER"] ?? "amqp://guest:guest@127.0.0.1:5672";
const CONNECTIONS = [1, 8, 32];
/** Images a second of the bound, with 32 connections: the rest is what serving may cost. */
const RATIO_BARS = { none: 0.9, amqp: 0.84 };
/** Those with which a cluster is compared with one process: what the hops take at idle, and what CPU they cost. */
const COMPARED = [1, 32];
/** What two hops of RabbitMQ may take at idle, and CPU milliseconds of all processes for each request. */
const HOPS_BARS = { ofBare: 1.15, cpuMs: 2.4 };
/** Until V8 has compiled what a long-lived server has compiled. */
const WARM_UP_SECONDS = 15;
/** A sample is taken again if other machines had a larger share of the time. */
const MAX_STEAL = 0.02;
const MAX_TRIES = 4;
/** How often Node looks at its event loop (prom-client's default), milliseconds. */
const LAG_INTERVAL_MS = 10;

const MODELS = {
  pets: { service: "resnet-cat", dir: "models/pets-resnet" },
  resnet50: { service: "resnet50", dir: "build/models/resnet50-random" },
};
if (values.model !== "pets" && values.model !== "resnet50")
  misused("Expected --model to be pets or resnet50");
if (values.transport !== "none" && values.transport !== "amqp")
  misused("Expected --transport to be none or amqp");

function positive(option: "rounds" | "seconds"): number {
  const value = Number(values[option]);
  if (value > 0) return value;
  return misused(`Expected --${option} to be a number above 0 but received "${values[option]}"`);
}

const { service, dir } = MODELS[values.model];
if (values.model === "resnet50" && !existsSync(resolve(ROOT, dir))) {
  console.error("Writing a ResNet-50 with random weights …");
  await writeResnet50(resolve(ROOT, dir, "1"));
}

const images = values.photos
  ? readdirSync(values.photos)
      .filter((name) => /\.jpe?g$/i.test(name))
      .map((name) => readFileSync(resolve(values.photos ?? "", name)))
  : await generatePhotos(16);

if (values.peer !== undefined) {
  if (values.peer !== "plain") throw new Error(`Expected --peer to be plain but received "${values.peer}"`);
  const compared = await comparePeer(images, rounds, seconds);
  printPeer(compared.load);
  console.log(peerVerdict(compared.load));
  if (values.json) console.log(JSON.stringify(compared));
  process.exit(compared.load.some(({ failed }) => failed > 0) ? 1 : 0);
}

const input = new Model(latestVersion(resolve(ROOT, dir))).input as ImageInput;
const cores = wholeCores();
const engine = new EngineMeter(resolve(ROOT, dir), cores);

interface Parts {
  /** Images a second. */
  readonly decode: number;
  readonly engine: number;
  /** Requests a second over two hops of RabbitMQ; Infinity without. */
  readonly hops: number;
  readonly bound: number;
  readonly boundWithHops: number;
  /** Milliseconds of one request over two hops with nothing else going on; 0 without. */
  readonly hopsAloneMs: number;
  /** Median of one image prepared and computed with nothing else going on, milliseconds. */
  readonly aloneMs: number;
}

/** Both parts alone, now. */
async function measureParts(): Promise<Parts> {
  const each = seconds / 5;
  const decode = (await measureDecode(images, input, each, decodes)).perSecond;
  const computed = (await engine.measure(engineAt, each)).perSecond;
  const overHops = (await hops?.measure(each)) ?? Number.POSITIVE_INFINITY;
  const hopsAloneMs = (await hops?.measureAlone(each)) ?? 0;
  const aloneMs = (await decodeMs()) + (await engine.measure({ size: 1, atOnce: 1 }, each / 2)).medianMs;
  const bound = 1 / (1 / decode + 1 / computed);
  return {
    decode,
    engine: computed,
    hops: overHops,
    hopsAloneMs,
    bound,
    boundWithHops: 1 / (1 / bound + 1 / overHops),
    aloneMs,
  };
}

/** Median of one image prepared alone, milliseconds. */
async function decodeMs(): Promise<number> {
  const pipeline = new ImagePipeline();
  const times: number[] = [];
  for (let i = 0; i < 40; i++) {
    const image = images[i % images.length];
    if (!image) continue;
    const began = performance.now();
    await pipeline.inspect(image);
    await pipeline.prepare(image, input);
    times.push(performance.now() - began);
  }
  pipeline.close();
  return median(times);
}

/** The setting under which most is done in a second. */
async function best<T>(
  settings: readonly [T, ...T[]],
  measure: (setting: T) => Promise<{ readonly perSecond: number }>,
): Promise<T> {
  let [winner] = settings;
  let most = 0;
  for (const setting of settings) {
    const { perSecond } = await measure(setting);
    if (perSecond > most) [winner, most] = [setting, perSecond];
  }
  return winner;
}

// Without the cache: the same photos come again and again.
const common = { CACHE_TTL_MS: "0", SERVICES_DIRS: "services,bench/services" };

function start(env: Record<string, string>): Promise<TestServer> {
  return startServer(env, [], resolve(values.checkout ?? ROOT));
}

function startOneProcess(): Promise<TestServer> {
  return start({ ...common, SERVICES: `gateway,dispatcher,${service}` });
}

/** The gateway first. */
function startCluster(): Promise<TestServer[]> {
  const cluster = {
    ...common,
    TRANSPORTER: RABBITMQ_URL,
    NAMESPACE: `bench-${process.pid}`,
  };
  return Promise.all(["gateway", "dispatcher", service].map((name) => start({ ...cluster, SERVICES: name })));
}

async function worstEventLoopDelayMs(url: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const match = /^nodejs_eventloop_lag_max_seconds (\S+)$/m.exec(text);
  // The metric counts its own sampling interval in.
  return match ? Number(match[1]) * 1e3 - LAG_INTERVAL_MS : Number.NaN;
}

async function untilModelsAre(url: string): Promise<void> {
  for (const end = Date.now() + 20_000; Date.now() < end; await delay(100)) {
    const { models } = (await (await fetch(`${url}/api/models`)).json()) as {
      models: { name: string; state: string }[];
    };
    if (models.some(({ name, state }) => name === service && state === "ready")) return;
  }
  throw new Error(`${service} did not come up`);
}

interface Sample {
  readonly load: LoadResult;
  readonly parts: Parts;
  /** Share of the time that other machines had. */
  readonly steal: number;
  /** The same to one process without RabbitMQ, right after; only with a cluster. */
  readonly oneProcess?: LoadResult;
}

/** Load, with the parts before and after it. */
async function sample(url: string, connections: number, reference?: string): Promise<Sample> {
  const steal = stealMeter();
  const before = await measureParts();
  const load = await drive(target(url), images, connections, seconds);
  const after = await measureParts();
  const mean = (key: keyof Parts) => (before[key] + after[key]) / 2;
  const parts = {
    decode: mean("decode"),
    engine: mean("engine"),
    hops: mean("hops"),
    hopsAloneMs: mean("hopsAloneMs"),
    bound: mean("bound"),
    boundWithHops: mean("boundWithHops"),
    aloneMs: mean("aloneMs"),
  };
  if (!reference) return { load, parts, steal: steal() };
  const oneProcess = await drive(target(reference), images, connections, seconds);
  return { load, parts, oneProcess, steal: steal() };
}

/** Again while other machines take our time; else the best of what there was. */
async function quietSample(...args: Parameters<typeof sample>): Promise<Sample> {
  const tries: Sample[] = [];
  do tries.push(await sample(...args));
  while (tries.length < MAX_TRIES && (tries.at(-1)?.steal ?? 0) > MAX_STEAL);
  return tries.reduce((a, b) => (b.steal < a.steal ? b : a));
}

const target = (url: string) => `${url}/api/classify?models=${service}`;

const engineAt = await best<EngineSetting>(
  [
    { size: 1, atOnce: 1 },
    { size: 4, atOnce: 1 },
    { size: 8, atOnce: 1 },
    { size: 1, atOnce: cores },
    { size: 2, atOnce: cores },
    { size: 4, atOnce: cores },
    { size: 8, atOnce: cores },
  ],
  (setting) => engine.measure(setting, 1.5),
);
const decodes = await best([cores, cores + 1, 2 * cores], (at) => measureDecode(images, input, 1, at));

const meanBytes = Math.round(images.reduce((sum, image) => sum + image.length, 0) / images.length);
const hops =
  values.transport === "amqp"
    ? await HopsMeter.start(RABBITMQ_URL, meanBytes, input.width * input.height * 3)
    : undefined;
const servers = values.transport === "none" ? [await startOneProcess()] : await startCluster();
if (values.transport === "amqp") servers.push(await startOneProcess());
const url = servers[0]?.url ?? "";
const reference = values.transport === "amqp" ? servers.at(-1)?.url : undefined;
const samples: Sample[] = [];
let loopDelayMs = 0;
try {
  for (const each of reference ? [url, reference] : [url]) {
    await untilModelsAre(each);
    await drive(target(each), images, 8, WARM_UP_SECONDS);
  }
  for (let round = 0; round < rounds; round++) {
    for (const connections of CONNECTIONS) {
      samples.push(
        await quietSample(url, connections, COMPARED.includes(connections) ? reference : undefined),
      );
      loopDelayMs = Math.max(loopDelayMs, await worstEventLoopDelayMs(url));
    }
  }
} finally {
  await Promise.all(servers.map((server) => server.stop()));
  await engine.close();
  await hops?.stop();
}

const of = (connections: number) => samples.filter(({ load }) => load.connections === connections);
const idle = of(1);

/** What the cluster takes more than one process. */
function added(these: readonly Sample[], key: "p50" | "cpuMs"): number {
  return median(these.map(({ load, oneProcess }) => load[key] - (oneProcess?.[key] ?? Number.NaN)));
}

const report = {
  model: values.model,
  transport: values.transport,
  cores,
  decodesAtOnce: decodes,
  engineAt,
  decodePerSecond: median(samples.map(({ parts }) => parts.decode)),
  enginePerSecond: median(samples.map(({ parts }) => parts.engine)),
  ...(hops ? { hopsPerSecond: median(samples.map(({ parts }) => parts.hops)) } : {}),
  aloneMs: median(idle.map(({ parts }) => parts.aloneMs)),
  idleOverheadMs: median(idle.map(({ load, parts }) => load.p50 - parts.aloneMs)),
  ...(reference
    ? {
        twoHops: {
          idleMs: added(idle, "p50"),
          bareMs: median(idle.map(({ parts }) => parts.hopsAloneMs)),
          cpuMs: added(of(32), "cpuMs"),
        },
      }
    : {}),
  eventLoopDelayMs: loopDelayMs,
  steal: Math.max(...samples.map(({ steal }) => steal)),
  load: CONNECTIONS.map((connections) => ({
    connections,
    perSecond: median(of(connections).map(({ load }) => load.perSecond)),
    p50: median(of(connections).map(({ load }) => load.p50)),
    p99: median(of(connections).map(({ load }) => load.p99)),
    bound: median(of(connections).map(({ parts }) => parts.bound)),
    ratio: median(of(connections).map(({ load, parts }) => load.perSecond / parts.bound)),
    ratioWithHops: median(of(connections).map(({ load, parts }) => load.perSecond / parts.boundWithHops)),
    failed: of(connections).reduce((sum, { load }) => sum + load.failed, 0),
  })),
};

const cell = (value: number, digits = 1) => value.toFixed(digits).padStart(9);
console.log(
  `${values.model} over ${values.transport === "none" ? "one process" : values.transport}, ${cores} cores`,
);
console.log(
  `decode alone ${report.decodePerSecond.toFixed(1)}/s (${decodes} at once), ` +
    `engine alone ${report.enginePerSecond.toFixed(1)}/s (${engineAt.atOnce} × batches of ${engineAt.size}); ` +
    (report.hopsPerSecond === undefined ? "" : `bare amqplib ${report.hopsPerSecond.toFixed(1)}/s; `) +
    `one image alone ${report.aloneMs.toFixed(2)} ms`,
);
console.log(
  `connections   images/s   p50 ms   p99 ms    bound    ratio${hops ? "  of bound with hops" : ""}   failed`,
);
for (const { connections, perSecond, p50, p99, bound, ratio, ratioWithHops, failed } of report.load) {
  console.log(
    String(connections).padStart(11) +
      cell(perSecond) +
      cell(p50) +
      cell(p99) +
      cell(bound) +
      cell(ratio, 2) +
      (hops ? ratioWithHops.toFixed(2).padStart(20) : "") +
      cell(failed, 0),
  );
}
console.log(
  `idle overhead p50 ${report.idleOverheadMs.toFixed(2)} ms` +
    (report.twoHops === undefined
      ? ""
      : `, of which RabbitMQ's two hops ${report.twoHops.idleMs.toFixed(2)} ms (bare amqplib ` +
        `${report.twoHops.bareMs.toFixed(2)} ms), and at 32 connections ${report.twoHops.cpuMs.toFixed(2)} ms of CPU`) +
    `; worst event-loop delay ${loopDelayMs.toFixed(1)} ms` +
    `; stolen by other machines at most ${(100 * report.steal).toFixed(1)} % of the time`,
);
console.log(
  verdict([
    {
      what: "of the bound at 32 connections",
      value: (hops ? report.load.at(-1)?.ratioWithHops : report.load.at(-1)?.ratio) ?? Number.NaN,
      atLeast: RATIO_BARS[values.transport === "amqp" ? "amqp" : "none"],
    },
    ...(report.twoHops
      ? [
          {
            what: "times bare amqplib for two hops at idle",
            value: report.twoHops.idleMs / report.twoHops.bareMs,
            atMost: HOPS_BARS.ofBare,
          },
          {
            what: "ms of CPU more than in one process",
            value: report.twoHops.cpuMs,
            atMost: HOPS_BARS.cpuMs,
          },
        ]
      : []),
    { what: "requests failed", value: report.load.reduce((sum, { failed }) => sum + failed, 0), atMost: 0 },
  ]),
);
if (values.json) console.log(JSON.stringify(report));
if (report.load.some(({ failed }) => failed > 0)) process.exitCode = 1;
