import { parseArgs } from "node:util";
import fc from "fast-check";
import { ImagePipeline } from "../../lib/kinds/image/pipeline.ts";
import { damaged, fuzz, structures } from "../../testkit/fuzz-images.ts";
import { privateMemory } from "../../testkit/processes.ts";
import { bases, goodFiles } from "../unit/lib/kinds/image/samples.ts";

/**
 * The whole of what `npm test` does a part of: thousands of damaged files and strange structures through the real
 * pipeline and its decoders. Fails at the first that is neither pixels nor an error meant for the client, and prints
 * fast-check's seed, with which it comes again.
 */
const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "20000" },
    seed: { type: "string", default: String(Date.now() % 2 ** 31) },
    path: { type: "string", default: "" },
  },
});
const runs = Number(values.runs);
const seed = Number(values.seed);
/** Images at once, one for each decoder. */
const LANES = 2;

const verdicts = new Map<string, number>();
const outcomes = new Map<string, number>();
const slowest = { inspectMs: 0, prepareMs: 0 };
const more = (tally: Map<string, number>, key: string) => tally.set(key, (tally.get(key) ?? 0) + 1);

const pipeline = new ImagePipeline({
  maxPixels: 4e6,
  concurrency: LANES,
  onDecoderEnded: (verdict) => more(verdicts, verdict),
});
await pipeline.start();
const memoryBefore = privateMemory(process.pid);
let memory = memoryBefore;
const watch = setInterval(() => {
  memory = Math.max(memory, privateMemory(process.pid));
}, 50);

async function one(bytes: Buffer): Promise<void> {
  const { outcome, inspectMs, prepareMs } = await fuzz(pipeline, bytes);
  more(outcomes, outcome);
  slowest.inspectMs = Math.max(slowest.inspectMs, inspectMs);
  slowest.prepareMs = Math.max(slowest.prepareMs, prepareMs);
}

const samples = await goodFiles();
const base = await bases();
/** One in five is a structure: it takes longer to make. */
const property = fc.asyncProperty(
  fc.oneof({ weight: 4, arbitrary: damaged(samples) }, { weight: 1, arbitrary: structures(base) }),
  async (bytes) => one(await bytes),
);
const began = performance.now();
/** Of a report, which holds the image byte by byte. */
const REPORT_CHARACTERS = 2_000;
const lanes = Promise.all(
  Array.from({ length: LANES }, (_, lane) =>
    fc.assert(property, {
      numRuns: Math.ceil(runs / LANES),
      seed: seed + lane,
      ...(values.path ? { path: values.path } : {}),
    }),
  ),
);
await lanes.catch((error: Error) => {
  console.error(error.message.slice(0, REPORT_CHARACTERS), error.cause);
  process.exit(1);
});
clearInterval(watch);
pipeline.close();
const list = (tally: ReadonlyMap<string, number>) =>
  [...tally].map(([key, count]) => `${key} ${count}`).join(", ") || "none";
console.log(
  `${LANES * Math.ceil(runs / LANES)} images in ${Math.round((performance.now() - began) / 1000)} s, seed ${seed}`,
);
console.log(`outcomes: ${list(outcomes)}`);
console.log(`decoders ended: ${list(verdicts)}`);
console.log(
  `slowest: ${slowest.inspectMs.toFixed(0)} ms to inspect, ${slowest.prepareMs.toFixed(0)} ms to prepare; memory +${Math.round((memory - memoryBefore) / 1e6)} MB`,
);
