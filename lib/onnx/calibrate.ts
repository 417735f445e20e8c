import "../engines/no-telemetry.ts";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InferenceSession, type Tensor } from "onnxruntime-node";
import { value } from "./build.ts";
import { type ModelProto, readModel, TYPE, writeModel } from "./proto.ts";
import { planOf } from "./quantize.ts";
import { type Range, RangeFinder, randomBy } from "./ranges.ts";
import { upgrade } from "./upgrade.ts";

/** What a graph is given, by the names of its inputs. */
export type Feeds = Readonly<Record<string, Tensor>>;

export interface QuantizeOptions {
  /** Threads of the runs. */
  readonly threads: number;
  /** Which values of the activations are looked at. */
  readonly seed?: number;
  readonly onProgress?: (done: number, of: number) => void;
}

const SILENT = 4;

/**
 * A float32 model as int8, see `quantize.ts`.
 *
 * @param bytes of the ONNX file
 * @param samples inputs like those it will be asked about, of any batch size; a hundred are plenty
 * @returns bytes of the ONNX file
 * @throws Error if it is no such model, or gives numbers that are not finite
 */
export async function quantize(
  bytes: Uint8Array,
  samples: readonly (() => Promise<Feeds>)[],
  options: QuantizeOptions,
): Promise<Uint8Array> {
  if (samples.length === 0) throw new Error("Expected at least one sample to calibrate with");
  const model = await simplified(bytes);
  const plan = planOf(model);
  return writeModel(plan.write(await rangesOf(model, plan.observed, samples, options)));
}

/** With batch norms folded into convolutions and constants computed, which the runtime does best itself. */
export async function simplified(bytes: Uint8Array): Promise<ModelProto> {
  const model = readModel(bytes);
  upgrade(model);
  const dir = await mkdtemp(join(tmpdir(), "dl-lambda-"));
  try {
    const file = join(dir, "model.onnx");
    const session = await InferenceSession.create(writeModel(model), {
      graphOptimizationLevel: "basic",
      optimizedModelFilePath: file,
      logSeverityLevel: SILENT,
    });
    await session.release();
    return readModel(await readFile(file));
  } finally {
    await rm(dir, { recursive: true });
  }
}

/** Runs the float32 model over the samples, watching what flows through it. */
async function rangesOf(
  model: ModelProto,
  names: readonly string[],
  samples: readonly (() => Promise<Feeds>)[],
  { threads, seed = 1, onProgress }: QuantizeOptions,
): Promise<ReadonlyMap<string, Range>> {
  const { graph } = model;
  const given = new Set([...graph.input, ...graph.output].map(({ name }) => name));
  const inner = names.filter((name) => !given.has(name));
  const output = [...graph.output, ...inner.map((name) => value(name, TYPE.float, []))];
  for (const each of output) delete each.type?.tensorType?.shape;
  const session = await InferenceSession.create(writeModel({ ...model, graph: { ...graph, output } }), {
    intraOpNumThreads: threads,
    logSeverityLevel: SILENT,
  });
  const random = randomBy(seed);
  const finders = new Map(names.map((name) => [name, new RangeFinder(samples.length, random)]));
  try {
    for (const [i, sample] of samples.entries()) {
      const feeds = await sample();
      const seen = await session.run(feeds);
      for (const [name, finder] of finders) see(name, finder, seen[name] ?? feeds[name]);
      onProgress?.(i + 1, samples.length);
    }
  } finally {
    await session.release();
  }
  return new Map([...finders].map(([name, finder]) => [name, finder.best()]));
}

function see(name: string, finder: RangeFinder, tensor: Tensor | undefined): void {
  if (!(tensor?.data instanceof Float32Array)) throw new Error(`Expected float32 numbers in ${name}`);
  try {
    finder.see(tensor.data);
  } catch (error) {
    throw new Error(`The model cannot be quantised: in ${name} is ${(error as Error).message}`);
  }
}
