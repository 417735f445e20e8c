import { createHash } from "node:crypto";
import { copyFile, mkdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { type ModelProto, readModel } from "../onnx/proto.ts";
import { DownloadError, type DownloadOptions, download } from "./download.ts";
import { type Manifest, readManifest, verifyFiles } from "./manifest.ts";

/** A file of the zoo as its own records have it. */
export interface ZooFile {
  readonly name: string;
  readonly bytes: number;
  /** Lower-case hex. */
  readonly sha256: string;
}

/** An ImageNet classifier of the ONNX model zoo. */
export interface ZooModel {
  readonly file: ZooFile;
  /** Class names, one a line in the order of the outputs: `n01440764 tench, Tinca tinca`. */
  readonly classes: ZooFile;
  /** Share of right answers on ImageNet's validation set, as the zoo states it: the first, and any of five. */
  readonly accuracy: { readonly top1: number; readonly top5?: number };
}

const CLASSES: ZooFile = {
  name: "synset.txt",
  bytes: 31_675,
  sha256: "acf75ef0abe89694b19056e0796401068b459c457baa30335f240c7692857355",
};

const entry = (name: string, bytes: number, sha256: string, top1: number, top5?: number): ZooModel => ({
  file: { name, bytes, sha256 },
  classes: CLASSES,
  accuracy: { top1, ...(top5 === undefined ? {} : { top5 }) },
});

/** What can be pulled, by the name it gets. */
export const ZOO: Readonly<Record<string, ZooModel>> = {
  resnet50: entry(
    "resnet50-v1-12-int8.onnx",
    25_816_052,
    "c234f30975989788b4405f25253275aae247ab6dbdd34aaa69ab0a59ff76f6d0",
    0.7477,
    0.9232,
  ),
  "resnet50-qdq": entry(
    "resnet50-v1-12-qdq.onnx",
    25_753_167,
    "e6429d274805654c79ba68dc886c1efd4eff95393e747c35d3fdab579febd8a0",
    0.7443,
  ),
  "resnet50-fp32": entry(
    "resnet50-v1-12.onnx",
    102_576_593,
    "3f03fdef724b22947eed826f1eef1dc5c34151bb4c37d634f1db89dfa2dd1526",
    0.7497,
    0.9233,
  ),
  "resnet50-v2": entry(
    "resnet50-v2-7.onnx",
    102_442_452,
    "79102261eb6e5fd7af5d27f41316293e388c5cb691e5d25bfb035c4f64fefe31",
    0.7581,
    0.9282,
  ),
  resnet18: entry(
    "resnet18-v1-7.onnx",
    46_820_737,
    "4e8f8653e7a2222b3904cc3fe8e304cd8b339ce1d05fd24688162f86fb6df52c",
    0.6993,
    0.8929,
  ),
};

/** Where a file may be had. */
export type Origin = (file: ZooFile) => string;

const REPOSITORY = "https://github.com/onnx/models/raw/main/validated/vision/classification";

/** The zoo's places, the present one first. */
export const ORIGINS: readonly Origin[] = [
  ({ name }) => `https://huggingface.co/onnxmodelzoo/${name.replace(/\.onnx$/, "")}/resolve/main/${name}`,
  ({ name }) => `${REPOSITORY}/${name.endsWith(".onnx") ? `resnet/model/${name}` : name}`,
];

/** A mirror with all files in one folder. @throws TypeError if `base` is no URL */
export function mirror(base: string): Origin {
  const folder = new URL(base.endsWith("/") ? base : `${base}/`);
  return ({ name }) => new URL(name, folder).href;
}

export interface PullOptions {
  readonly name: string;
  readonly model: ZooModel;
  readonly modelsDir: string;
  /** Tried in their order; only a file with the right digest counts. */
  readonly origins: readonly Origin[];
  /** Files that are here already, by their name in the zoo. */
  readonly files?: Readonly<Record<string, string>>;
  readonly onProgress?: (file: ZooFile, done: number) => void;
  readonly download?: Pick<DownloadOptions, "signal" | "readTimeoutMs" | "tries" | "retryDelayMs">;
}

const VERSION = 1;
const IMAGENET = { mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375] } as const;
const SHORT_SIDE = 256;
/** Domestic cats (tabby … Egyptian), and dogs (Chihuahua … Mexican hairless). */
const CATS = [281, 285] as const;
const DOGS = [151, 268] as const;
/** For a model without a bound of its own. */
const MAX_BATCH = 64;

/**
 * Puts a model of the zoo into the models' folder: its file, verified, and a manifest. What is there already, whole, is
 * left alone. The manifest comes last: until then the version does not exist.
 *
 * @returns the version's folder
 * @throws DownloadError if no origin has the file, or what they have is another
 */
export async function pull(options: PullOptions): Promise<string> {
  const { name, model, modelsDir } = options;
  const dir = resolve(modelsDir, name, String(VERSION));
  if (await isWhole(dir, model)) return dir;
  await mkdir(dir, { recursive: true });
  const classes = resolve(dir, model.classes.name);
  const wanted = [
    { file: model.classes, to: classes },
    { file: model.file, to: resolve(dir, "model.onnx") },
  ];
  // What is here already first: that it is another file is told before anything is fetched.
  const isHere = ({ file }: { readonly file: ZooFile }) => Number(options.files?.[file.name] !== undefined);
  for (const { file, to } of wanted.sort((a, b) => isHere(b) - isHere(a))) await fetchFile(file, to, options);
  const graph = readModel(await readFile(resolve(dir, "model.onnx"))).graph;
  const manifest = manifestOf(name, model, graph, await readFile(classes, "utf8"));
  const unfinished = resolve(dir, "manifest.json.part");
  await writeFile(unfinished, `${JSON.stringify(manifest, null, 2)}\n`);
  await rename(unfinished, resolve(dir, "manifest.json"));
  readManifest(dir);
  return dir;
}

async function isWhole(dir: string, { file }: ZooModel): Promise<boolean> {
  try {
    const manifest = readManifest(dir);
    await verifyFiles(manifest, dir);
    return manifest.files[0]?.sha256 === file.sha256;
  } catch {
    return false;
  }
}

/** From the file that is here already, else from the first origin that has the right one. */
async function fetchFile(
  file: ZooFile,
  to: string,
  { origins, files = {}, onProgress, download: how }: PullOptions,
): Promise<void> {
  const local = files[file.name];
  if (local !== undefined) {
    await copyVerified(local, file, to);
    return;
  }
  const problems: string[] = [];
  for (const origin of origins) {
    try {
      await download({
        url: origin(file),
        to,
        bytes: file.bytes,
        sha256: file.sha256,
        maxBytes: file.bytes,
        ...how,
        onProgress: (done) => onProgress?.(file, done),
      });
      return;
    } catch (error) {
      if (!(error instanceof DownloadError)) throw error;
      problems.push(error.message);
    }
  }
  throw new DownloadError([`${file.name} cannot be had:`, ...problems].join("\n  "));
}

async function copyVerified(from: string, file: ZooFile, to: string): Promise<void> {
  const { size } = await stat(from);
  const digest = createHash("sha256")
    .update(await readFile(from))
    .digest("hex");
  if (digest !== file.sha256) {
    throw new DownloadError(
      `${from} is another file than the zoo's ${file.name}: ${size} bytes, sha256 ${digest} instead of ${file.sha256}`,
    );
  }
  const unfinished = `${to}.part`;
  await copyFile(from, unfinished);
  await rename(unfinished, to);
}

function manifestOf(name: string, model: ZooModel, graph: ModelProto["graph"], classes: string): Manifest {
  const labels = labelsOf(classes);
  const constants = new Set(graph.initializer.map((constant) => constant.name));
  const input = graph.input.find((each) => !constants.has(each.name));
  const output = graph.output[0];
  const dims = (input?.type?.tensorType?.shape?.dim ?? []).map(({ dimValue }) => Number(dimValue ?? 0));
  const [batch = 0, channels = 3, height = 224, width = 224] = dims;
  if (!input || !output) throw new Error(`${model.file.name} has no input or no output`);
  return {
    $schema: "../../manifest.schema.json",
    manifest: 2,
    name,
    version: VERSION,
    format: "onnx",
    files: [{ path: "model.onnx", bytes: model.file.bytes, sha256: model.file.sha256 }],
    inputs: [{ name: input.name, dtype: "float32", shape: [channels, height, width] }],
    outputs: [{ name: output.name, dtype: "float32", shape: [labels.length] }],
    // A graph for one size of batch names it.
    maxBatch: batch > 0 ? batch : MAX_BATCH,
    kind: {
      name: "image",
      shortSide: Math.round((SHORT_SIDE * Math.max(height, width)) / 224),
      normalisation: { mean: [...IMAGENET.mean], std: [...IMAGENET.std] },
    },
    task: {
      name: "classification",
      output: output.name,
      activation: "softmax",
      labels,
      groups: {
        ...Object.fromEntries(labels.map((label, i) => [label, [i]])),
        cat: between(CATS),
        dog: between(DOGS),
      },
    },
    licence: "Apache-2.0 (ONNX model zoo); trained on ImageNet",
    source: `ONNX model zoo, ${model.file.name}`,
    accuracy: { ...model.accuracy },
  };
}

/** Names without their WordNet ids; where two classes have one name (there are two cranes) the id tells them apart. */
function labelsOf(classes: string): string[] {
  const rows = classes
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map((line) => /^(n\d+)\s+(.+?)\s*$/.exec(line) ?? ["", line.trim(), line.trim()]);
  const names = rows.map(([, , name = ""]) => name);
  return rows.map(([, id = "", name = ""]) =>
    names.indexOf(name) === names.lastIndexOf(name) ? name : `${name} (${id})`,
  );
}

function between([from, to]: readonly [number, number]): number[] {
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}
