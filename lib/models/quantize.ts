import "../engines/no-telemetry.ts";
import { readdir, readFile } from "node:fs/promises";
import { basename, dirname, extname, resolve } from "node:path";
import { Tensor as OrtTensor } from "onnxruntime-node";
import type { Engine } from "../engines/engine.ts";
import { toFloats } from "../engines/planes.ts";
import { createEngine } from "../engines/runtimes.ts";
import { stack, type Tensors } from "../engines/tensors.ts";
import { image } from "../kinds/image/kind.ts";
import { type Feeds, quantize } from "../onnx/calibrate.ts";
import { randomBy } from "../onnx/ranges.ts";
import { createScope } from "../request/scope.ts";
import type { Manifest } from "./manifest.ts";
import { Model } from "./model.ts";
import { writeVersionFolder } from "./write.ts";

export interface QuantizeModelOptions {
  /** Folder of the float32 version. */
  readonly from: string;
  /** Folder of the int8 version, `<name>/<version>`. */
  readonly to: string;
  /** Folder with photos, at any depth. */
  readonly photos: string;
  /** Photos that the ranges come from, at most; as many others again are asked about. */
  readonly samples: number;
  readonly threads: number;
  readonly onProgress?: (what: string, done: number, of: number) => void;
}

/** One version beside another. Shares are from 0 to 1. */
export interface QuantizeReport {
  readonly calibratedWith: number;
  /** Photos that both were asked about; none of them calibrated, unless there was only one. */
  readonly askedAbout: number;
  readonly bytes: Pair;
  /** Items a second at batches of eight, with all threads; medians of rounds by turns. */
  readonly perSecond: Pair;
  /** Share of the photos for which both name the same label first. */
  readonly agreement: number;
  /** Largest difference of a probability. */
  readonly largestDifference: number;
  /** Share of right labels, if folders or names of the photos say what they show. */
  readonly accuracy?: Pair & { readonly of: number };
}

interface Pair {
  readonly float32: number;
  readonly int8: number;
}

const PHOTO = /\.(jpe?g|png|webp|gif|avif|tiff?)$/i;
const MAX_PHOTO_BYTES = 50 << 20;
const SEED = 1;
const BATCH = 8;
const ROUNDS = 5;
const ROUND_MS = 1500;
const LOAD_TIMEOUT_MS = 60_000;

/**
 * Writes an int8 version of a float32 image classifier, and says what was won and lost by it.
 *
 * @throws ManifestError, or Error if it is no such model, or there are no photos
 */
export async function quantizeModel(options: QuantizeModelOptions): Promise<QuantizeReport> {
  const { from, to, threads, samples, onProgress } = options;
  const float = new Model(from);
  await float.verify();
  const { kind, task, files, format } = float.manifest;
  if (kind.name !== "image" || task.name !== "classification" || format !== "onnx") {
    throw new Error(
      `Expected an ONNX image classifier in ${from} but it is ${format}, ${kind.name}, ${task.name}`,
    );
  }
  const all = shuffled(await photosIn(options.photos));
  if (all.length === 0) throw new Error(`Found no photos in ${options.photos}`);
  const calibration = all.slice(0, Math.max(1, Math.min(samples, Math.floor(all.length / 2))));
  const asked = all.length > 1 ? all.slice(calibration.length, calibration.length + samples) : all;

  const preparer = await image.open({ maxBytes: MAX_PHOTO_BYTES });
  const itemOf = async (file: string): Promise<Tensors> => {
    const input = { bytes: await readFile(file), type: "" };
    return preparer.prepare(input, float.input as Parameters<typeof preparer.prepare>[1], createScope());
  };
  try {
    const weights = await readFile(resolve(from, files[0]?.path ?? ""));
    const feeds = calibration.map((file) => async () => feedsOf(float, await itemOf(file)));
    const int8 = await quantize(weights, feeds, {
      threads,
      seed: SEED,
      onProgress: (done, of) => onProgress?.("calibrating", done, of),
    });
    await writeVersion(float, from, to, int8);
    const items: Tensors[] = [];
    for (const [i, file] of asked.entries()) {
      items.push(await itemOf(file));
      onProgress?.("preparing", i + 1, asked.length);
    }
    const compared = await compare(
      float,
      new Model(to),
      items,
      asked.map((file) => labelIn(file, task)),
      threads,
    );
    return {
      calibratedWith: calibration.length,
      askedAbout: asked.length,
      bytes: { float32: weights.length, int8: int8.length },
      ...compared,
    };
  } finally {
    await preparer.close();
  }
}

async function photosIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true });
  return entries
    .filter((name) => PHOTO.test(name))
    .sort()
    .map((name) => resolve(folder, name));
}

function shuffled(files: string[]): string[] {
  const random = randomBy(SEED);
  return files
    .map((file) => [random(), file] as const)
    .sort(([a], [b]) => a - b)
    .map(([, file]) => file);
}

/** An item as the graph itself takes it. */
function feedsOf(model: Model, item: Tensors): Feeds {
  const { planes = {} } = model.engineSpec(1);
  return Object.fromEntries(
    Object.entries(model.collate([item])).map(([name, tensor]) => {
      const normalisation = planes[name];
      const { dtype, shape, data } = normalisation ? toFloats(tensor, normalisation) : tensor;
      return [name, new OrtTensor(dtype, data as never, shape)];
    }),
  );
}

/** The class that a photo's folder, or the start of its name, says: a label or a group. Its indices. */
function labelIn(
  file: string,
  { labels, groups }: Extract<Manifest["task"], { name: "classification" }>,
): readonly number[] | undefined {
  const names = [basename(dirname(file)), basename(file, extname(file)).replace(/[-_ .]?\d+$/, "")];
  for (const name of names) {
    if (Object.hasOwn(groups, name)) return groups[name];
    if (labels.includes(name)) return [labels.indexOf(name)];
  }
  return undefined;
}

/** The files and the manifest of the int8 version. The float32 network's accuracy and golden outputs are not its own. */
async function writeVersion(float: Model, from: string, to: string, int8: Uint8Array): Promise<void> {
  const [first, ...others] = float.manifest.files;
  const { accuracy: _, golden: __, ...same } = float.manifest;
  const kept = await Promise.all(
    others.map(async ({ path }) => [path, await readFile(resolve(from, path))] as const),
  );
  const source = `${float.manifest.source}; quantised to int8 from version ${float.id.version} of ${float.id.name}`;
  await writeVersionFolder(to, { ...same, source }, [[first?.path ?? "model.onnx", int8], ...kept]);
}

async function compare(
  float: Model,
  int8: Model,
  items: readonly Tensors[],
  truths: readonly (readonly number[] | undefined)[],
  threads: number,
): Promise<Omit<QuantizeReport, "calibratedWith" | "askedAbout" | "bytes">> {
  const engines = await Promise.all([float, int8].map((model) => engineOf(model, threads)));
  try {
    const [of32 = [], of8 = []] = await Promise.all(
      [float, int8].map((model, i) => outputsOf(model, engines[i] as Engine, items)),
    );
    const first = (output: Float32Array) => output.indexOf(Math.max(...output));
    const known = truths.flatMap((truth, i) => (truth ? [[truth, i] as const] : []));
    const right = (outputs: readonly Float32Array[]) =>
      known.filter(([truth, i]) => truth.includes(first(outputs[i] ?? new Float32Array()))).length /
      known.length;
    const differences = of32.map((output, i) =>
      Math.max(...output.map((p, k) => Math.abs(p - (of8[i]?.[k] ?? 0)))),
    );
    return {
      perSecond: await speeds(float, engines, items),
      agreement: of32.filter((output, i) => first(output) === first(of8[i] ?? output)).length / of32.length,
      largestDifference: Math.max(...differences),
      ...(known.length > 0 ? { accuracy: { float32: right(of32), int8: right(of8), of: known.length } } : {}),
    };
  } finally {
    await Promise.all(engines.map((engine) => engine.close()));
  }
}

async function engineOf(model: Model, threads: number): Promise<Engine> {
  const engine = createEngine({ ...model.engineSpec(BATCH), threads }, { name: "quantize" });
  await engine.load(AbortSignal.timeout(LOAD_TIMEOUT_MS));
  return engine;
}

const NEVER = { deadline: Number.POSITIVE_INFINITY };

async function outputsOf(model: Model, engine: Engine, items: readonly Tensors[]): Promise<Float32Array[]> {
  const outputs: Float32Array[] = [];
  for (const item of items) {
    outputs.push(model.interpret(await engine.run(model.collate([item]), 1, NEVER)) as Float32Array);
  }
  return outputs;
}

/** By turns, so that both see the same machine. */
async function speeds(model: Model, engines: readonly Engine[], items: readonly Tensors[]): Promise<Pair> {
  const size = Math.min(BATCH, model.manifest.maxBatch);
  const batch = model.collate(
    Array.from({ length: size }, (_, i) => stack([items[i % items.length] as Tensors])),
  );
  const rates: number[][] = engines.map(() => []);
  for (let round = 0; round <= ROUNDS; round++) {
    for (const [i, engine] of engines.entries()) {
      const began = performance.now();
      let done = 0;
      do {
        await engine.run(batch, size, NEVER);
        done += size;
      } while (performance.now() - began < ROUND_MS);
      // The first round warms up.
      if (round > 0) rates[i]?.push((1000 * done) / (performance.now() - began));
    }
  }
  const [float32 = Number.NaN, int8 = Number.NaN] = rates.map(
    (each) => each.sort((a, b) => a - b)[Math.floor(each.length / 2)] ?? Number.NaN,
  );
  return { float32, int8 };
}
