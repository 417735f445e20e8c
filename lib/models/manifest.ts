import { createHash } from "node:crypto";
import { createReadStream, readdirSync, readFileSync, statSync } from "node:fs";
import { stat } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import { pipeline } from "node:stream/promises";

/** What is known of one version of a model: `models/<name>/<version>/manifest.json`. */
export interface Manifest {
  /** Name of the folder above the version's. */
  readonly name: string;
  /** Name of the version's folder: a whole number, at least 1. */
  readonly version: number;
  /** The runtime that loads it: the name of a module in `lib/engines/`, e.g. "onnx". */
  readonly format: string;
  /** The weights: a file beside the manifest. */
  readonly file: string;
  /** Size of the weights. */
  readonly bytes: number;
  /** Of the weights, lower-case hex. */
  readonly sha256: string;
  readonly input: ManifestInput;
  readonly output: {
    /** Name of the graph's output, `[n, labels]` float32. */
    readonly tensor: string;
    /** What makes probabilities of it. */
    readonly activation: "softmax";
  };
  /** In the order of the outputs. */
  readonly labels: readonly string[];
  /** Indices of `labels` that together answer a question, e.g. every breed for "dog". */
  readonly groups: Readonly<Record<string, readonly number[]>>;
  /** Of the weights, for people. */
  readonly licence: string;
  /** Where the weights come from, for people. */
  readonly source: string;
  /** Shares of right answers, 0–1, for people. */
  readonly accuracy?: Readonly<Record<string, number>>;
}

export interface ManifestInput {
  /** Name of the graph's input, RGB. */
  readonly tensor: string;
  /** Pixels 0–255 as they are, or normalised by an engine. */
  readonly dtype: "uint8" | "float32";
  /** Channels last with uint8, first with float32. */
  readonly layout: "NHWC" | "NCHW";
  readonly width: number;
  readonly height: number;
  readonly channels: 3;
  /** "in-graph", or what the engine has to do: (pixel - mean) / std for each channel, pixels 0–255. */
  readonly normalisation: "in-graph" | { readonly mean: readonly number[]; readonly std: readonly number[] };
  /** The photo's short side is scaled to this before the centre is cut out. Absent: the photo just covers the frame. */
  readonly shortSide?: number;
}

type Check = readonly [expected: string, test: (value: unknown) => boolean];

const text: Check = ["a text", (v) => typeof v === "string" && v.trim() !== ""];
const positive: Check = ["a whole number of at least 1", (v) => Number.isSafeInteger(v) && Number(v) >= 1];
const oneOf = (...values: readonly unknown[]): Check => [
  values.map((v) => JSON.stringify(v)).join(" or "),
  (v) => values.includes(v),
];
const optional = ([expected, test]: Check): Check => [
  `${expected}, or nothing`,
  (v) => v === undefined || test(v),
];
const isRecord = (v: unknown): v is Record<string, unknown> =>
  typeof v === "object" && v !== null && !Array.isArray(v);
const isRgb = (v: unknown) => Array.isArray(v) && v.length === 3 && v.every(Number.isFinite);

const FIELDS: Readonly<Record<string, Check>> = {
  name: ["a name of a–z, 0–9, - and _", (v) => typeof v === "string" && /^[a-z0-9][a-z0-9_-]*$/.test(v)],
  version: positive,
  format: ["the name of an engine", (v) => typeof v === "string" && /^[a-z][a-z0-9-]*$/.test(v)],
  file: [
    "the name of a file beside the manifest",
    (v) => typeof v === "string" && /^[\w-][\w.-]*$/.test(v) && v !== "manifest.json",
  ],
  bytes: positive,
  sha256: ["64 lower-case hex digits", (v) => typeof v === "string" && /^[0-9a-f]{64}$/.test(v)],
  "input.tensor": text,
  "input.dtype": oneOf("uint8", "float32"),
  "input.layout": oneOf("NHWC", "NCHW"),
  "input.width": positive,
  "input.height": positive,
  "input.channels": oneOf(3),
  "input.normalisation": [
    `"in-graph" or {mean: [r, g, b], std: [r, g, b]} without a zero in std`,
    (v) =>
      v === "in-graph" ||
      (isRecord(v) && isRgb(v["mean"]) && isRgb(v["std"]) && !(v["std"] as number[]).includes(0)),
  ],
  "input.shortSide": optional(positive),
  "output.tensor": text,
  "output.activation": oneOf("softmax"),
  labels: [
    "a list of different texts",
    (v) => Array.isArray(v) && v.length > 0 && v.every(text[1]) && new Set(v).size === v.length,
  ],
  groups: ["one group of labels or more", (v) => isRecord(v) && Object.keys(v).length > 0],
  licence: text,
  source: text,
  accuracy: optional([
    "shares from 0 to 1 by name",
    (v) => isRecord(v) && Object.values(v).every((x) => typeof x === "number" && x >= 0 && x <= 1),
  ]),
};

/** Thrown when a version's manifest is missing or wrong; the message lists every problem. */
export class ManifestError extends Error {
  constructor(dir: string, problems: readonly string[]) {
    super(`The manifest in ${dir} cannot be used:\n${problems.map((problem) => `  ${problem}`).join("\n")}`);
    this.name = "ManifestError";
  }
}

/**
 * The manifest of one version, validated. It must bear the names of the folders it lies in: a copied folder is not
 * taken for the version it was copied from.
 *
 * @param versionDir `models/<name>/<version>`
 * @throws ManifestError with all problems at once
 */
export function readManifest(versionDir: string): Manifest {
  const dir = resolve(versionDir);
  const manifest = parse(dir);
  const problems = Object.entries(FIELDS)
    .filter(([path, [, test]]) => !test(at(manifest, path)))
    .map(([path, [expected]]) => mismatch(expected, path, at(manifest, path)));
  // What the fields have to do with each other can only be said of fields that are right.
  if (problems.length === 0) problems.push(...contradictions(manifest as Manifest, dir));
  if (problems.length > 0) throw new ManifestError(dir, problems);
  return manifest as Manifest;
}

/**
 * Reads the weights once and compares size and digest with the manifest: a half-copied or exchanged file is found at
 * start, not in the answers.
 *
 * @throws ManifestError if the file is another one
 */
export async function verifyFile(manifest: Manifest, versionDir: string): Promise<void> {
  const dir = resolve(versionDir);
  const file = resolve(dir, manifest.file);
  const { size } = await stat(file);
  if (size !== manifest.bytes) throw new ManifestError(dir, [mismatch(manifest.bytes, "bytes", size)]);
  const hash = createHash("sha256");
  await pipeline(createReadStream(file), hash);
  const digest = hash.digest("hex");
  if (digest !== manifest.sha256) throw new ManifestError(dir, [mismatch(manifest.sha256, "sha256", digest)]);
}

/**
 * The versions of a model, ascending: folders named by a whole number with a valid manifest and weights of the size
 * it says. Anything else does not exist, so a version can be copied in while the server runs.
 *
 * @param modelDir `models/<name>`; empty if it does not exist
 */
export function listVersions(modelDir: string): number[] {
  return numberedFolders(modelDir).filter((version) => problemOf(modelDir, version) === undefined);
}

/**
 * Folder of the highest version of a model.
 *
 * @param modelDir `models/<name>`
 * @throws Error if there is none; the message says what is wrong with the folders that are there
 */
export function latestVersion(modelDir: string): string {
  const version = listVersions(modelDir).at(-1);
  if (version !== undefined) return resolve(modelDir, String(version));
  const reasons = numberedFolders(modelDir).map((found) => problemOf(modelDir, found));
  throw new Error([`No version of a model in ${resolve(modelDir)}`, ...reasons].join("\n"));
}

function numberedFolders(modelDir: string): number[] {
  try {
    return readdirSync(modelDir)
      .filter((name) => /^[1-9]\d{0,14}$/.test(name))
      .map(Number)
      .sort((a, b) => a - b);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

function problemOf(modelDir: string, version: number): string | undefined {
  const dir = resolve(modelDir, String(version));
  try {
    const { file, bytes } = readManifest(dir);
    const size = statSync(resolve(dir, file)).size;
    return size === bytes ? undefined : new ManifestError(dir, [mismatch(bytes, "bytes", size)]).message;
  } catch (error) {
    return (error as Error).message;
  }
}

function parse(dir: string): unknown {
  try {
    const value: unknown = JSON.parse(readFileSync(resolve(dir, "manifest.json"), "utf8"));
    if (isRecord(value)) return value;
    throw new Error(mismatch("an object", "manifest.json", value));
  } catch (error) {
    throw new ManifestError(dir, [(error as Error).message]);
  }
}

function contradictions({ name, version, input, labels, groups }: Manifest, dir: string): string[] {
  const problems = [];
  if (basename(dirname(dir)) !== name) problems.push(mismatch(basename(dirname(dir)), "name", name));
  if (basename(dir) !== String(version)) problems.push(mismatch(basename(dir), "version", version));
  const bytes = input.dtype === "uint8";
  if (bytes !== (input.normalisation === "in-graph")) {
    const expected = bytes ? `"in-graph" with uint8` : "mean and std with float32";
    problems.push(mismatch(expected, "input.normalisation", input.normalisation));
  }
  if (bytes !== (input.layout === "NHWC")) {
    problems.push(
      mismatch(bytes ? `"NHWC" with uint8` : `"NCHW" with float32`, "input.layout", input.layout),
    );
  }
  const frame = Math.max(input.width, input.height);
  if (input.shortSide !== undefined && input.shortSide < frame) {
    problems.push(mismatch(`at least ${frame}`, "input.shortSide", input.shortSide));
  }
  for (const [group, indices] of Object.entries(groups)) {
    const fits =
      Array.isArray(indices) &&
      indices.length > 0 &&
      indices.every((i) => Number.isInteger(i) && i >= 0 && i < labels.length) &&
      new Set(indices).size === indices.length;
    if (!fits) {
      problems.push(mismatch(`different indices from 0 to ${labels.length - 1}`, `groups.${group}`, indices));
    }
  }
  return problems;
}

function at(manifest: unknown, path: string): unknown {
  return path
    .split(".")
    .reduce<unknown>(
      (value, key) => (isRecord(value) && Object.hasOwn(value, key) ? value[key] : undefined),
      manifest,
    );
}

function mismatch(expected: unknown, path: string, value: unknown): string {
  const received = value === undefined ? "undefined" : JSON.stringify(value).slice(0, 200);
  return `Expected ${expected} for ${path} but received ${received} of type ${typeof value}`;
}
