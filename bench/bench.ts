import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { cpuLimit } from "../lib/cgroup.ts";
import { ImagePipeline } from "../lib/image.ts";
import { ImageModel } from "../lib/image-model.ts";
import { latestVersion } from "../lib/manifest.ts";
import { startServer, type TestServer } from "../test/helpers/server.ts";
import { generatePhotos, measureDecode } from "./decode.ts";
import { measureEngine } from "./engine.ts";
import { drive, type LoadResult } from "./load.ts";

/**
 * Throughput and latency over HTTP, beside what the two parts it is made of can do alone in the same run:
 *
 *     bound = 1 / (1 / decode + 1 / engine)      images a second, both with all cores
 *
 * The load generator runs on the same cores and its time counts against us.
 *
 *     npm run bench -- [--model pets|resnet50] [--transport none|amqp] [--photos DIR] [--seconds N] [--json]
 */
const { values } = parseArgs({
  options: {
    model: { type: "string", default: "pets" },
    transport: { type: "string", default: "none" },
    photos: { type: "string" },
    seconds: { type: "string", default: "10" },
    json: { type: "boolean", default: false },
  },
});
const seconds = Number(values.seconds);
const ROOT = resolve(import.meta.dirname, "..");

const MODELS = {
  pets: { service: "resnet-cat", dir: "models/pets-resnet", group: "cat" },
  resnet50: { service: "resnet50", dir: "build/models/resnet50-random", group: "cat" },
};
if (values.model !== "pets" && values.model !== "resnet50")
  throw new Error("Expected --model to be pets or resnet50");
const { service, dir, group } = MODELS[values.model];
if (values.model === "resnet50" && !existsSync(resolve(ROOT, dir))) {
  console.error(
    "Exporting a ResNet-50 with random weights (python3-torch, python3-torchvision, python3-onnx) …",
  );
  execFileSync("/usr/bin/python3", ["bench/resnet50.py", "--int8", "--out", `${dir}/1`], {
    cwd: ROOT,
    stdio: "inherit",
  });
}

const images = values.photos
  ? readdirSync(values.photos)
      .filter((name) => /\.jpe?g$/i.test(name))
      .map((name) => readFileSync(resolve(values.photos ?? "", name)))
  : await generatePhotos(16);

const model = new ImageModel(latestVersion(resolve(ROOT, dir)), { group, threshold: 0.5 });
const { input } = model.description;
const cores = Math.max(1, Math.floor(cpuLimit()));

/** Both parts alone. Taken before and after the load, for machines whose speed drifts. */
async function parts() {
  const decode = await measureDecode(images, input, seconds / 2, cores);
  const engine = await measureEngine(resolve(ROOT, dir), group, cores, seconds / 2);
  return {
    decode: decode.perSecond,
    engine: engine.perSecond,
    engineMs: engine.singleMs,
    batch: engine.batchSize,
  };
}

/** Median of one image prepared alone, milliseconds. */
async function decodeMs(): Promise<number> {
  const pipeline = new ImagePipeline();
  const times: number[] = [];
  for (let i = 0; i < 200; i++) {
    const image = images[i % images.length];
    if (!image) continue;
    const began = performance.now();
    await pipeline.inspect(image);
    await pipeline.prepare(image, input);
    times.push(performance.now() - began);
  }
  return times.sort((a, b) => a - b)[times.length >> 1] ?? 0;
}

async function startAll(): Promise<TestServer[]> {
  // Without the cache: the same photos come again and again.
  const common = { CACHE_TTL_MS: "0", SERVICES_DIRS: "services,bench/services" };
  if (values.transport === "none")
    return [await startServer({ ...common, SERVICES: `gateway,dispatcher,${service}` })];
  const cluster = {
    ...common,
    TRANSPORTER: process.env["TRANSPORTER"] ?? "amqp://guest:guest@127.0.0.1:5672",
    NAMESPACE: `bench-${process.pid}`,
  };
  return Promise.all(
    ["gateway", "dispatcher", service].map((name) => startServer({ ...cluster, SERVICES: name })),
  );
}

async function worstEventLoopDelayMs(url: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const match = /^event_loop_delay_seconds\{.*quantile="1".*\} (\S+)$/m.exec(text);
  return match ? Number(match[1]) * 1e3 : Number.NaN;
}

async function untilModelsAre(url: string): Promise<void> {
  for (
    const end = Date.now() + 20_000;
    Date.now() < end;
    await new Promise((done) => setTimeout(done, 100))
  ) {
    const { models } = (await (await fetch(`${url}/api/models`)).json()) as {
      models: { name: string; state: string }[];
    };
    if (models.some(({ name, state }) => name === service && state === "ready")) return;
  }
  throw new Error(`${service} did not come up`);
}

const before = await parts();
const singleDecodeMs = await decodeMs();
const servers = await startAll();
const results: LoadResult[] = [];
let loopDelayMs = 0;
try {
  const url = servers[0]?.url ?? "";
  await untilModelsAre(url);
  const target = `${url}/api/classify?models=${service}`;
  await drive(target, images, 8, 2);
  for (const connections of [1, 8, 32]) {
    results.push(await drive(target, images, connections, seconds));
    loopDelayMs = Math.max(loopDelayMs, await worstEventLoopDelayMs(url));
  }
} finally {
  await Promise.all(servers.map((server) => server.stop()));
}
const after = await parts();

const mean = (key: "decode" | "engine" | "engineMs") => (before[key] + after[key]) / 2;
const bound = 1 / (1 / mean("decode") + 1 / mean("engine"));
const aloneMs = singleDecodeMs + mean("engineMs");
const report = {
  model: values.model,
  transport: values.transport,
  cores,
  decodePerSecond: mean("decode"),
  enginePerSecond: mean("engine"),
  boundPerSecond: bound,
  aloneMs,
  idleOverheadMs: (results[0]?.p50 ?? 0) - aloneMs,
  eventLoopDelayMs: loopDelayMs,
  load: results.map((result) => ({ ...result, ratio: result.perSecond / bound })),
};

const cell = (value: number, digits = 1) => value.toFixed(digits).padStart(9);
console.log(
  `${values.model} over ${values.transport === "none" ? "one process" : values.transport}, ${cores} cores`,
);
console.log(
  `decode alone ${report.decodePerSecond.toFixed(1)}/s, engine alone ${report.enginePerSecond.toFixed(1)}/s`,
);
console.log(`bound ${bound.toFixed(1)}/s; one image alone ${aloneMs.toFixed(2)} ms`);
console.log("connections   images/s   p50 ms   p99 ms    bound    ratio   failed");
for (const { connections, perSecond, p50, p99, ratio, failed } of report.load) {
  console.log(
    String(connections).padStart(11) +
      cell(perSecond) +
      cell(p50) +
      cell(p99) +
      cell(bound) +
      cell(ratio, 2) +
      cell(failed, 0),
  );
}
console.log(
  `idle overhead p50 ${report.idleOverheadMs.toFixed(2)} ms; worst event-loop delay ${loopDelayMs.toFixed(1)} ms`,
);
if (values.json) console.log(JSON.stringify(report));
if (report.load.some(({ failed }) => failed > 0)) process.exitCode = 1;
