import "../engines/no-telemetry.ts";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { nearest } from "../check.ts";
import type { Engine } from "../engines/engine.ts";
import { createEngine } from "../engines/runtimes.ts";
import { contradictions, outputFault, settledItems } from "../engines/signature.ts";
import type { Tensors } from "../engines/tensors.ts";
import { image } from "../kinds/image/kind.ts";
import { node } from "../onnx/build.ts";
import { type ModelProto, readModel, TYPE, type ValueInfoProto, writeModel } from "../onnx/proto.ts";
import { createScope } from "../request/scope.ts";
import { type ClassificationPart, classification, type LabelProbability } from "../tasks/classification.ts";
import { type Manifest, readManifest } from "./manifest.ts";
import { Model } from "./model.ts";

export interface AddOptions {
  /** The ONNX file. */
  readonly file: string;
  /** Name of the model's folder. */
  readonly name: string;
  readonly version: number;
  readonly modelsDir: string;
  /** In the order of the outputs. */
  readonly labels: readonly string[];
  /** Names of labels that together answer a question, by the question's name. */
  readonly groups: Readonly<Record<string, readonly string[]>>;
  /** What is done to pixels of 0–255 before a graph of floats takes them. */
  readonly normalisation: { readonly mean: Colours; readonly std: Colours };
  /** See the manifest's `shortSide`. */
  readonly shortSide?: number;
  /** Where the graph takes any: pixels of both sides. */
  readonly size?: number;
  /** Where the shape does not say: 3 × any × 3. */
  readonly layout?: Layout;
  /** Absent: found out from what the graph makes of the photo. */
  readonly activation?: ClassificationPart["activation"];
  /** What it is tried on, encoded. */
  readonly photo: Uint8Array;
  readonly threads: number;
  readonly licence: string;
  readonly source: string;
  /** Whether a version that is there already is replaced. */
  readonly force: boolean;
}

export type Layout = "nchw" | "nhwc";
type Colours = readonly [red: number, green: number, blue: number];

/** What was found out and written. */
export interface Added {
  /** The version's folder. */
  readonly dir: string;
  /** One sentence for each thing that was guessed or changed. */
  readonly notes: readonly string[];
  /** What it sees in the photo: the most probable first. */
  readonly labels: readonly LabelProbability[];
  readonly computeMs: number;
}

/** A graph that cannot be served, or options that do not fit it. The message is for who called the command. */
export class AddError extends Error {}

/** For a graph that takes any number at once. */
const MAX_BATCH = 64;
const DEFAULT_SIZE = 224;
const LOAD_TIMEOUT_MS = 120_000;
const MAX_PHOTO_BYTES = 50 << 20;
/** How far from 1 a sum of probabilities may be: int8 graphs round. */
const SUM_TOLERANCE = 0.02;

/**
 * Puts an image classifier into the models' folder: the graph, and a manifest made from what the graph says of itself.
 * It is tried on a photo first; nothing is written of a model that could not be served.
 *
 * @throws AddError saying what cannot be served and, where there is a way, how it could
 */
export async function addModel(options: AddOptions): Promise<Added> {
  const { name, version, modelsDir, force } = options;
  const notes: string[] = [];
  const dir = resolve(modelsDir, name, String(version));
  const described = describe(options, await read(options.file), notes);
  const work = await mkdtemp(join(tmpdir(), "models-add-"));
  try {
    // A manifest has to lie in folders of its names.
    const stage = join(work, name, String(version));
    await mkdir(stage, { recursive: true });
    await writeFile(join(stage, "model.onnx"), described.bytes);
    await writeManifest(stage, described.manifest);
    const { manifest, ...tried } = await tryOut(stage, described.manifest, options, notes);
    const there = existing(dir);
    const merged = there ? withGroupsOf(there, manifest) : manifest;
    if (there && isDeepStrictEqual(there, merged))
      notes.push("The model is there already, and stays as it is");
    else await publish(described.bytes, merged, dir, force);
    return { dir, notes, ...tried };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** The manifest of a version that is there; undefined: none, or none that is right. */
function existing(dir: string): Manifest | undefined {
  try {
    return readManifest(dir);
  } catch {
    return undefined;
  }
}

/** The questions that other services put to the same graph stay. */
function withGroupsOf(there: Manifest, manifest: Manifest): Manifest {
  const [before, after] = [there.task, manifest.task];
  const same = there.files[0]?.sha256 === manifest.files[0]?.sha256;
  if (!same || before.name !== "classification" || after.name !== "classification") return manifest;
  const { licence, source } = there;
  const groups = { ...before.groups, ...after.groups };
  return { ...manifest, task: { ...after, groups }, licence, source };
}

/** Written beside its place, which may be on another disk than the temporary folder: nothing is there until all is. */
async function publish(bytes: Uint8Array, manifest: Manifest, dir: string, force: boolean): Promise<void> {
  const unfinished = `${dir}.part`;
  await rm(unfinished, { recursive: true, force: true });
  await mkdir(unfinished, { recursive: true });
  await writeFile(join(unfinished, "model.onnx"), bytes);
  await writeManifest(unfinished, manifest);
  if (force) await rm(dir, { recursive: true, force: true });
  await rename(unfinished, dir).catch(async (error: NodeJS.ErrnoException) => {
    await rm(unfinished, { recursive: true, force: true });
    if (error.code !== "ENOTEMPTY" && error.code !== "EEXIST") throw error;
    throw new AddError(
      `${dir} is there already, and is another; --force replaces it, --model takes another name`,
    );
  });
}

function writeManifest(dir: string, manifest: Manifest): Promise<void> {
  return writeFile(join(dir, "manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`);
}

async function read(file: string): Promise<{ readonly bytes: Uint8Array; readonly proto: ModelProto }> {
  const bytes = await readFile(file).catch((error: NodeJS.ErrnoException) => {
    const why = error.code === "ENOENT" ? "there is no such file" : error.message;
    throw new AddError(`Cannot read ${file}: ${why}`);
  });
  try {
    return { bytes, proto: readModel(bytes) };
  } catch (error) {
    throw new AddError(`${file}: ${(error as Error).message}`);
  }
}

interface Frame {
  readonly layout: Layout;
  readonly height: number;
  readonly width: number;
  readonly dtype: "uint8" | "float32";
  /** 0: any. */
  readonly batch: number;
}

/** The manifest by what the graph says, and the graph as it will be served. */
function describe(
  options: AddOptions,
  { bytes, proto }: { readonly bytes: Uint8Array; readonly proto: ModelProto },
  notes: string[],
): { readonly bytes: Uint8Array; readonly manifest: Manifest } {
  const { name, version, labels, normalisation, shortSide, licence, source } = options;
  const given = inputOf(proto);
  const frame = frameOf(given, options, notes);
  const output = outputOf(proto, labels.length, notes);
  const { height, width, dtype, batch, layout } = frame;
  // Floats are served as planes, bytes as pixels; of the other way round the graph's first step makes its own.
  const turned = (dtype === "float32") !== (layout === "nchw");
  const graph = turned ? turnedBytes(proto, given, frame) : bytes;
  if (turned) notes.push(`The graph takes ${layout.toUpperCase()}: a Transpose was put before it`);
  const floats = dtype === "float32";
  if (shortSide !== undefined && shortSide < Math.max(height, width)) {
    throw new AddError(
      `Expected --short-side of at least ${Math.max(height, width)} but received ${shortSide}`,
    );
  }
  const indices = Object.entries(options.groups).map(([group, names]) => {
    return [group, names.map((label) => indexOf(label, labels))] as const;
  });
  return {
    bytes: graph,
    manifest: {
      manifest: 2,
      name,
      version,
      format: "onnx",
      files: [
        { path: "model.onnx", bytes: graph.length, sha256: createHash("sha256").update(graph).digest("hex") },
      ],
      inputs: [{ name: given.name, dtype, shape: floats ? [3, height, width] : [height, width, 3] }],
      outputs: [{ name: output, dtype: "float32", shape: [labels.length] }],
      maxBatch: batch || MAX_BATCH,
      kind: {
        name: "image",
        ...(shortSide === undefined ? {} : { shortSide }),
        ...(floats ? { normalisation: { mean: [...normalisation.mean], std: [...normalisation.std] } } : {}),
      },
      task: {
        name: "classification",
        output,
        activation: options.activation ?? "softmax",
        labels: [...labels],
        groups: {
          // Each label is a question that a further service can ask.
          ...Object.fromEntries(labels.map((label, i) => [label, [i]])),
          ...Object.fromEntries(indices),
        },
      },
      licence,
      source,
    },
  };
}

function indexOf(label: string, labels: readonly string[]): number {
  const index = labels.indexOf(label);
  if (index >= 0) return index;
  const near = nearest(label, labels);
  throw new AddError(`There is no label "${label}"${near ? `: did you mean "${near}"?` : ""}`);
}

function inputOf({ graph }: ModelProto): ValueInfoProto {
  // In older files constants are inputs, too.
  const constants = new Set(graph.initializer.map(({ name }) => name));
  const inputs = graph.input.filter(({ name }) => !constants.has(name));
  const [only] = inputs;
  if (only && inputs.length === 1) return only;
  const names = inputs.map(({ name }) => name).join(", ") || "none";
  throw new AddError(`Expected a graph with one input, an image, but it has ${inputs.length}: ${names}`);
}

/** Lengths; 0: any. Undefined: the file does not say. */
function dimsOf({ type }: ValueInfoProto): readonly number[] | undefined {
  return type?.tensorType?.shape?.dim?.map(({ dimValue }) => Number(String(dimValue ?? 0)));
}

function typeOf({ type }: ValueInfoProto): string {
  const number = type?.tensorType?.elemType;
  return Object.entries(TYPE).find(([, id]) => id === number)?.[0] ?? `type ${number ?? "unknown"}`;
}

const spell = (dims: readonly number[] | undefined) =>
  dims ? `[${dims.map((length) => length || "any").join(", ")}]` : "of no stated shape";

function frameOf(input: ValueInfoProto, options: AddOptions, notes: string[]): Frame {
  const dims = dimsOf(input);
  const type = typeOf(input);
  const it = `"${input.name}" ${type} ${spell(dims)}`;
  if (type !== "float" && type !== "uint8") {
    throw new AddError(`Cannot serve a graph whose input is ${it}: expected float or uint8`);
  }
  if (dims?.length !== 4) {
    throw new AddError(
      `Cannot serve a graph whose input is ${it}: expected [batch, 3, height, width] or [batch, height, width, 3]`,
    );
  }
  const [batch = 0, second = 0, , fourth = 0] = dims;
  if (batch > 1)
    throw new AddError(
      `Cannot serve a graph that computes ${batch} at once and no fewer: export it with a batch of any size`,
    );
  const layout = layoutOf(second, fourth, options.layout);
  if (!layout) {
    throw new AddError(
      second === 3 || second === 0
        ? `The input ${it} may be either: say --layout nchw or --layout nhwc`
        : `Cannot serve a graph whose input is ${it}: expected 3 channels, red, green, blue`,
    );
  }
  if (options.layout === undefined) notes.push(`Layout ${layout.toUpperCase()}, by the shape ${spell(dims)}`);
  const [height = 0, width = 0] = layout === "nchw" ? dims.slice(2) : dims.slice(1);
  const { size } = options;
  for (const length of [height, width]) {
    if (length === 0 || size === undefined || length === size) continue;
    throw new AddError(`The graph takes ${width} × ${height} pixels and no others, but --size says ${size}`);
  }
  const side = size ?? DEFAULT_SIZE;
  if ((height === 0 || width === 0) && size === undefined) {
    notes.push(`The graph takes any size: ${side} × ${side} pixels (--size takes another)`);
  }
  return {
    layout,
    height: height || side,
    width: width || side,
    dtype: type === "float" ? "float32" : "uint8",
    batch,
  };
}

/** The dimension that has the colours; undefined: neither, or both could. */
function layoutOf(second: number, fourth: number, said: Layout | undefined): Layout | undefined {
  const could: Layout[] = [];
  if (second === 3 || (second === 0 && fourth !== 3)) could.push("nchw");
  if (fourth === 3 || (fourth === 0 && second !== 3)) could.push("nhwc");
  if (said) return could.includes(said) ? said : undefined;
  return could.length === 1 ? could[0] : undefined;
}

/** The output with one number for each label. */
function outputOf({ graph }: ModelProto, labels: number, notes: string[]): string {
  const all = graph.output.map((each) => ({ each, dims: dimsOf(each), type: typeOf(each) }));
  const fitting = all.filter(
    ({ dims, type }) => type === "float" && dims?.length === 2 && [labels, 0].includes(dims[1] ?? 0),
  );
  const [first] = fitting;
  if (first) {
    if (all.length > 1) notes.push(`Of its ${all.length} outputs "${first.each.name}" is asked`);
    return first.each.name;
  }
  const rows = all.find(({ dims, type }) => type === "float" && dims?.length === 2);
  if (rows) {
    throw new AddError(
      `The graph gives ${rows.dims?.[1]} numbers, "${rows.each.name}", but there are ${labels} labels`,
    );
  }
  const there = all.map(({ each, dims, type }) => `"${each.name}" ${type} ${spell(dims)}`).join(", ");
  throw new AddError(
    `Expected an output float [batch, ${labels}], one number for each label, but the graph gives ${there}`,
  );
}

/** The same graph behind a Transpose, which the runtime mostly takes apart again. */
function turnedBytes({ graph, ...model }: ModelProto, input: ValueInfoProto, frame: Frame): Uint8Array {
  const { height, width, layout } = frame;
  const inner = `${input.name}/${layout}`;
  const [batch] = input.type?.tensorType?.shape?.dim ?? [];
  const served = layout === "nhwc" ? [3, height, width] : [height, width, 3];
  const perm = layout === "nhwc" ? [0, 2, 3, 1] : [0, 3, 1, 2];
  const turnedInput: ValueInfoProto = {
    name: input.name,
    type: {
      tensorType: {
        elemType: input.type?.tensorType?.elemType ?? TYPE.float,
        shape: { dim: [batch ?? { dimParam: "n" }, ...served.map((dimValue) => ({ dimValue }))] },
      },
    },
  };
  return writeModel({
    ...model,
    graph: {
      ...graph,
      input: graph.input.map((each) => (each === input ? turnedInput : each)),
      node: [
        node("Transpose", [input.name], inner, { perm }),
        ...graph.node.map((each) => ({
          ...each,
          input: each.input.map((name) => (name === input.name ? inner : name)),
        })),
      ],
    },
  });
}

/** Loads it, asks it about the photo, and corrects the manifest by what it does. */
async function tryOut(
  stage: string,
  manifest: Manifest,
  { photo, threads, activation }: AddOptions,
  notes: string[],
): Promise<Pick<Added, "labels" | "computeMs"> & { readonly manifest: Manifest }> {
  const model = new Model(stage);
  const task = manifest.task as ClassificationPart;
  const spec = { ...model.engineSpec(2), threads };
  const engine = createEngine(spec, { name: manifest.name });
  try {
    const signature = await engine.load(AbortSignal.timeout(LOAD_TIMEOUT_MS)).catch(refused("be loaded"));
    // The runtime knows what a file's shapes do not say.
    const single = signature.fixedBatch === 1;
    const [wrong] = contradictions(single ? { ...spec, maxBatch: 1 } : spec, signature);
    if (wrong !== undefined) throw new AddError(wrong);
    const item = await prepared(photo, model);
    const outputs = await run(engine, model, [item]).catch(refused("compute the photo"));
    const began = performance.now();
    await run(engine, model, [item]);
    const computeMs = performance.now() - began;
    const several = manifest.maxBatch === 1 || (!single && (await takesSeveral(engine, model, item)));
    if (!several) notes.push("The graph computes one at a time, whatever its shape says: batches of 1");
    const found = activation ?? activationOf(outputs, task.output);
    if (activation === undefined)
      notes.push(found === "none" ? "It gives probabilities" : "It gives logits: softmax is taken");
    const right = { ...task, activation: found };
    const probabilities = classification.interpret(outputs, 0, right);
    const { labels } = classification.answer(
      probabilities,
      { group: [0], threshold: 0.5 },
      { labels: task.labels },
    );
    return {
      manifest: { ...manifest, maxBatch: several ? manifest.maxBatch : 1, task: right },
      labels,
      computeMs,
    };
  } finally {
    await engine.close();
  }
}

const refused = (what: string) => (error: Error) => {
  throw new AddError(`The graph cannot ${what}: ${error.message}`);
};

async function prepared(photo: Uint8Array, model: Model): Promise<Tensors> {
  const preparer = await image.open({ maxBytes: MAX_PHOTO_BYTES, concurrency: 1 });
  try {
    const input = { bytes: photo, type: "" };
    await preparer.inspect(input, createScope());
    return await preparer.prepare(
      input,
      model.input as Parameters<typeof preparer.prepare>[1],
      createScope(),
    );
  } catch (error) {
    throw new AddError(`The photo to try it on: ${(error as Error).message}`);
  } finally {
    await preparer.close();
  }
}

async function run(engine: Engine, model: Model, items: readonly Tensors[]): Promise<Tensors> {
  const batch = model.collate(items);
  const outputs = await engine.run(batch, items.length, { deadline: Number.POSITIVE_INFINITY });
  const fault = outputFault({ ...model.engineSpec(items.length), threads: 1 }, outputs, items.length);
  if (fault !== undefined) throw new Error(fault);
  const bad = settledItems(outputs, items.length).find((each) => each instanceof Error);
  if (bad) throw bad;
  return outputs;
}

/** Whether two at once can be computed, and come out as two. */
async function takesSeveral(engine: Engine, model: Model, item: Tensors): Promise<boolean> {
  try {
    await run(engine, model, [item, item]);
    return true;
  } catch {
    return false;
  }
}

/** Numbers from 0 to 1 that sum up to 1 are probabilities. */
function activationOf(outputs: Tensors, output: string): ClassificationPart["activation"] {
  const values = [...((outputs[output]?.data ?? []) as Float32Array)];
  const sum = values.reduce((total, value) => total + value, 0);
  const shares = values.every((value) => value >= 0 && value <= 1);
  return shares && Math.abs(sum - 1) < SUM_TOLERANCE ? "none" : "softmax";
}
