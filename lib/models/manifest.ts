import { createHash } from "node:crypto";
import { createReadStream, existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import { z } from "zod";
import { mismatch, problemsOf } from "../check.ts";
import { remotePart } from "../engines/remote/part.ts";
import { DTYPES } from "../engines/tensors.ts";
import { KIND_PARTS, kindOf } from "../kinds/registry.ts";
import { TASK_PARTS, taskOf } from "../tasks/registry.ts";
import type { ModelId } from "./identity.ts";

const text = z.string().regex(/\S/, "a text");
const whole = z.int("a whole number of at least 1").min(1, "a whole number of at least 1");
const path = z
  .string()
  .regex(/^[\w-][\w.-]*(\/[\w-][\w.-]*)*$/, "the path of a file below the manifest's folder")
  .refine((name) => name !== "manifest.json", "the path of a file below the manifest's folder");

const tensorSpec = z.strictObject({
  name: text.describe("as the graph has it"),
  dtype: z.enum(DTYPES).describe("type of its elements"),
  shape: z
    .array(z.union([whole, z.null()], "a whole number of at least 1, or null"))
    .describe("of one item, without the batch dimension; null: any length"),
});

const goldenTensor = z.strictObject({
  dtype: z.enum(DTYPES),
  shape: z.array(whole).describe("of one item, without the batch dimension"),
  data: z
    .union([z.array(z.number()), z.array(z.string()), z.strictObject({ file: path })], {
      error: `numbers, texts, or {"file": …} among files with their bytes, little-endian`,
    })
    .describe("row-major values, or one of `files` that holds them as they lie in memory, little-endian"),
});

/**
 * What is known of one version of a model: `models/<name>/<version>/manifest.json`. The one declaration: the type, the
 * checks and the JSON Schema (`models/manifest.schema.json`) are made from it.
 */
export const MANIFEST = z.strictObject({
  $schema: z.string().optional().describe("for editors"),
  manifest: z.literal(2).describe("version of this format"),
  name: z
    .string()
    .regex(/^[a-z0-9][a-z0-9_-]*$/, "a name of a–z, 0–9, - and _")
    .describe("name of the folder above the version's"),
  version: whole.describe("name of the version's folder"),
  format: z
    .string()
    .regex(/^[a-z][a-z0-9-]*$/, "the name of a runtime")
    .describe("the runtime that loads it, e.g. onnx"),
  files: z
    .array(
      z.strictObject({
        path,
        bytes: whole,
        sha256: z.string().regex(/^[0-9a-f]{64}$/, "64 lower-case hex digits"),
      }),
    )
    .refine((files) => new Set(files.map((file) => file.path)).size === files.length, "different files")
    .describe(
      "everything the model consists of besides this file; the first is what the runtime opens; none of a remote one",
    ),
  remote: remotePart.optional().describe("of the format remote: another server that computes it"),
  inputs: z.array(tensorSpec).min(1).describe("of the graph"),
  outputs: z.array(tensorSpec).min(1).describe("of the graph, as far as they are used"),
  maxBatch: whole.describe("the most items the graph takes at once"),
  kind: z.discriminatedUnion("name", KIND_PARTS).describe("what an input is about"),
  task: z.discriminatedUnion("name", TASK_PARTS).describe("what the outputs mean"),
  golden: z
    .array(
      z.strictObject({
        inputs: z.record(z.string(), goldenTensor).describe("one item as its kind prepares it"),
        outputs: z.record(z.string(), goldenTensor).describe("what the graph made of it"),
        tolerance: z.number().min(0).describe("largest difference of a number: processors round differently"),
      }),
    )
    .optional()
    .describe("examples that prove a loaded model"),
  licence: text.describe("of the files, for people"),
  source: text.describe("where the files come from, for people"),
  accuracy: z
    .record(z.string(), z.number().min(0, "a share from 0 to 1").max(1, "a share from 0 to 1"))
    .optional()
    .describe("shares of right answers, for people"),
});

export type Manifest = Readonly<z.infer<typeof MANIFEST>>;
export type GoldenTensor = Readonly<z.infer<typeof goldenTensor>>;

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
  const value = parse(dir);
  const problems = problemsOf(MANIFEST, value);
  if (problems.length > 0) throw new ManifestError(dir, problems);
  const manifest = value as Manifest;
  // What the fields have to do with each other can only be said of fields that are right.
  const contradicting = contradictions(manifest, dir);
  if (contradicting.length > 0) throw new ManifestError(dir, contradicting);
  return manifest;
}

/**
 * Name, version and fingerprint. The fingerprint is the sha256 of the manifest with its keys in order, which holds the
 * digest of every file: formatting does not count, everything else does.
 */
export function identityOf({ $schema: _, ...manifest }: Manifest, runtime = ""): ModelId {
  // Another runtime than the manifest's may compute something else.
  const fingerprint = createHash("sha256").update(canonical(manifest)).update(runtime).digest("hex");
  return { name: manifest.name, version: manifest.version, fingerprint };
}

/**
 * Reads every file once and compares size and digest with the manifest: a half-copied or exchanged file is found at
 * start, not in the answers.
 *
 * @throws ManifestError naming every file that is another one
 */
export async function verifyFiles({ files }: Manifest, versionDir: string): Promise<void> {
  const dir = resolve(versionDir);
  const problems: string[] = [];
  for (const { path, bytes, sha256 } of files) {
    try {
      const { size } = await stat(resolve(dir, path));
      const digest = size === bytes ? await digestOf(resolve(dir, path)) : undefined;
      if (size !== bytes) problems.push(mismatch(bytes, `bytes of ${path}`, size));
      else if (digest !== sha256) problems.push(mismatch(sha256, `sha256 of ${path}`, digest));
    } catch (error) {
      problems.push((error as Error).message);
    }
  }
  if (problems.length > 0) throw new ManifestError(dir, problems);
}

/**
 * The versions of a model, ascending: folders named by a whole number with a valid manifest and files of the sizes it
 * says. Anything else does not exist, so a version can be copied in while the server runs.
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

/** The version's folder that a command is given: itself, or a model's name, for its latest. @throws Error if there is none */
export function versionFolder(given: string, modelsDir: string): string {
  return existsSync(join(given, "manifest.json")) ? resolve(given) : latestVersion(resolve(modelsDir, given));
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
    const problems = readManifest(dir).files.flatMap(({ path, bytes }) => {
      const { size } = statSync(resolve(dir, path));
      return size === bytes ? [] : [mismatch(bytes, `bytes of ${path}`, size)];
    });
    return problems.length === 0 ? undefined : new ManifestError(dir, problems).message;
  } catch (error) {
    return (error as Error).message;
  }
}

function parse(dir: string): unknown {
  try {
    return JSON.parse(readFileSync(resolve(dir, "manifest.json"), "utf8"));
  } catch (error) {
    throw new ManifestError(dir, [(error as Error).message]);
  }
}

function contradictions(manifest: Manifest, dir: string): string[] {
  const { name, version, format, files, remote, inputs, outputs, kind, task, golden = [] } = manifest;
  const problems = [];
  const isRemote = format === "remote";
  if (isRemote !== (remote !== undefined)) {
    problems.push(
      mismatch(isRemote ? "a server" : "nothing, with another format than remote,", "remote", remote),
    );
  }
  if (!isRemote && files.length === 0) problems.push(mismatch("at least 1 entries", "files", files));
  if (basename(dirname(dir)) !== name) problems.push(mismatch(basename(dirname(dir)), "name", name));
  if (basename(dir) !== String(version)) problems.push(mismatch(basename(dir), "version", version));
  for (const [list, specs] of Object.entries({ inputs, outputs })) {
    const names = specs.map((spec) => spec.name);
    if (new Set(names).size < names.length) problems.push(mismatch("different names", list, names));
  }
  problems.push(
    ...kindOf(kind.name).contradictions(kind, inputs),
    ...taskOf(task.name).contradictions(task, outputs),
  );
  const named = golden.flatMap((example) => [
    ...Object.values(example.inputs),
    ...Object.values(example.outputs),
  ]);
  for (const { data } of named) {
    if (Array.isArray(data) || files.some((file) => file.path === data.file)) continue;
    problems.push(mismatch("one of files", "golden", data.file));
  }
  return problems;
}

/** A file of a model as its manifest names it. @param content all of it */
export function fileEntry(path: string, content: Uint8Array): Manifest["files"][number] {
  return { path, bytes: content.length, sha256: createHash("sha256").update(content).digest("hex") };
}

async function digestOf(file: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(file), hash);
  return hash.digest("hex");
}

/** JSON with the keys of every object in order. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}
