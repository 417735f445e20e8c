/**
 * One network in each runtime that there is: as it ships (ONNX int8), and the same weights in float32 in ONNX Runtime,
 * TensorFlow.js on WebAssembly and, where it is installed, tfjs-node. By turns, so that all see the same machine.
 *
 *     node bench/runtimes.ts [--model pets-resnet] [--threads 2] [--rounds 3] [--seconds 3]
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import type { Engine, EngineSpec } from "../lib/engines/engine.ts";
import { createEngine } from "../lib/engines/runtimes.ts";
import { findsNative } from "../lib/engines/tensorflow/native.ts";
import { zeros } from "../lib/engines/tensors.ts";
import { wholeCores } from "../lib/load/cgroup.ts";
import { latestVersion } from "../lib/models/manifest.ts";
import { Model } from "../lib/models/model.ts";
import { writeTfjs } from "../lib/models/to-tfjs.ts";
import { median } from "../testkit/percentile.ts";

const { values } = parseArgs({
  options: {
    model: { type: "string", default: "pets-resnet" },
    models: { type: "string", default: "models" },
    threads: { type: "string", default: String(wholeCores()) },
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "3" },
  },
});
const SIZES = [1, 8];
const NEVER = { deadline: Number.POSITIVE_INFINITY };
const LOAD_TIMEOUT_MS = 120_000;

const work = mkdtempSync(join(tmpdir(), "runtimes-"));
const from = latestVersion(resolve(values.models, values.model));
const tfjs = join(work, `${basename(dirname(from))}-tfjs`, "1");
writeFileSync(join(work, "float32.onnx"), await writeTfjs(from, tfjs));

const threads = Number(values.threads);
const shipped = { ...new Model(from).engineSpec(8), threads };
const converted = { ...new Model(tfjs).engineSpec(8), threads };
const specs: Record<string, EngineSpec> = {
  "ONNX Runtime, as it ships": shipped,
  "ONNX Runtime, float32": { ...shipped, dir: work, files: ["float32.onnx"] },
  "TensorFlow.js, WASM": { ...converted, runtime: "tfjs-wasm" },
  ...(findsNative() ? { "tfjs-node": { ...converted, runtime: "tfjs-node" } } : {}),
};

const engines: [string, Engine][] = [];
for (const [name, spec] of Object.entries(specs)) {
  const engine = createEngine(spec, { name });
  console.log(`${name}: ${(await engine.load(AbortSignal.timeout(LOAD_TIMEOUT_MS))).engine}`);
  engines.push([name, engine]);
}

async function rate(engine: Engine, size: number, seconds: number): Promise<number> {
  const batch = Object.fromEntries(
    shipped.inputs.map(({ name, dtype, shape }) => [name, zeros(dtype, [size, ...shape.map((n) => n ?? 1)])]),
  );
  const began = performance.now();
  let items = 0;
  do {
    await engine.run(batch, size, NEVER);
    items += size;
  } while (performance.now() - began < 1000 * seconds);
  return (1000 * items) / (performance.now() - began);
}

const rates = new Map(engines.map(([name]) => [name, SIZES.map(() => [] as number[])]));
for (let round = -1; round < Number(values.rounds); round++) {
  for (const [i, size] of SIZES.entries()) {
    for (const [name, engine] of engines) {
      // The first round warms up.
      const measured = await rate(engine, size, round < 0 ? 1 : Number(values.seconds));
      if (round >= 0) rates.get(name)?.[i]?.push(measured);
    }
  }
}
await Promise.all(engines.map(([, engine]) => engine.close()));
rmSync(work, { recursive: true });

console.log(`\nitems/s, medians of ${values.rounds} rounds, ${threads} threads`);
console.table(
  Object.fromEntries(
    [...rates].map(([name, bySize]) => [
      name,
      Object.fromEntries(
        SIZES.map((size, i) => [`batches of ${size}`, Number(median(bySize[i] ?? []).toFixed(1))]),
      ),
    ]),
  ),
);
