import { readFile } from "node:fs/promises";
import { join, posix } from "node:path";
import type { io } from "@tensorflow/tfjs-core";
import { z } from "zod";
import { problemsOf } from "../../check.ts";

/** What `model.json` and its shards hold. */
export interface TfjsFiles {
  readonly format: "graph-model" | "layers-model";
  readonly artifacts: io.ModelArtifacts;
  /** Of a graph model: its inputs and outputs by the names that callers know. */
  readonly signature?: Readonly<Record<string, Readonly<Record<string, object>>>> | undefined;
}

/** Bytes of an element as it is stored. */
const STORED = { float32: 4, int32: 4, bool: 1, complex64: 8, uint8: 1, uint16: 2, float16: 2 } as const;

const weight = z.looseObject({
  name: z.string(),
  shape: z.array(z.int().min(0)),
  dtype: z.enum(["float32", "int32", "bool", "string", "complex64"]),
  quantization: z
    .looseObject({
      dtype: z.enum(["uint8", "uint16", "float16"]),
      scale: z.number().optional(),
      min: z.number().optional(),
    })
    .optional(),
});

/** As far as it is read here. */
const modelJson = z.looseObject({
  format: z.enum(["graph-model", "layers-model"]).optional(),
  modelTopology: z.record(z.string(), z.unknown()),
  weightsManifest: z.array(z.looseObject({ paths: z.array(z.string()), weights: z.array(weight) })),
  signature: z.record(z.string(), z.unknown()).optional(),
});

type ModelJson = z.infer<typeof modelJson>;
type Weight = z.infer<typeof weight>;

/**
 * Reads a model in the format of TensorFlow.js.
 *
 * @param files paths below `dir`: `model.json` first; the others have its weights
 * @throws Error that says what of it cannot be: JSON that is none, a shard that is missing or of another size, a
 *   weight that is not finite
 */
export async function readFiles(dir: string, files: readonly string[]): Promise<TfjsFiles> {
  const [first = ""] = files;
  const json = parsed(first, await readFile(join(dir, first), "utf8"));
  const groups = json.weightsManifest;
  // Shards are named as seen from model.json, and are nothing but files of the manifest, whose digests are known.
  const paths = groups.flatMap(({ paths }) => paths.map((path) => posix.join(posix.dirname(first), path)));
  const missing = paths.filter((path) => !files.includes(path));
  if (missing.length > 0) {
    throw new Error(`${first} has weights in ${missing.join(", ")}, which the manifest does not list`);
  }
  const shards = await Promise.all(paths.map((path) => readFile(join(dir, path))));
  const weights = groups.flatMap((group) => group.weights);
  const data = Buffer.concat(shards);
  checkWeights(first, weights, data);
  const { modelTopology, signature } = json;
  const isGraph = json.format ? json.format === "graph-model" : "node" in modelTopology;
  return {
    format: isGraph ? "graph-model" : "layers-model",
    signature: signature as TfjsFiles["signature"],
    artifacts: {
      ...(json as object),
      modelTopology,
      weightSpecs: weights as io.WeightsManifestEntry[],
      // A copy: a pool's buffer begins anywhere.
      weightData: new Uint8Array(data).buffer,
    },
  };
}

function parsed(name: string, text: string): ModelJson {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`${name} is no JSON: ${(error as Error).message}`);
  }
  const problems = problemsOf(modelJson, value);
  if (problems.length > 0) throw new Error(`${name} is no model of TensorFlow.js: ${problems.join("; ")}`);
  return value as ModelJson;
}

/** Texts have no size that is known; a model that has some is not measured. */
function checkWeights(file: string, weights: readonly Weight[], data: Buffer): void {
  if (weights.some(({ dtype }) => dtype === "string")) return;
  const sizes = weights.map(({ shape, dtype, quantization }) => {
    const stored = quantization?.dtype ?? (dtype as keyof typeof STORED);
    return STORED[stored] * shape.reduce((product, length) => product * length, 1);
  });
  const total = sizes.reduce((sum, size) => sum + size, 0);
  if (data.length !== total) {
    throw new Error(`${file} has weights of ${total} bytes, but its shards have ${data.length}`);
  }
  let at = 0;
  for (const [i, { name, dtype, quantization }] of weights.entries()) {
    const end = at + (sizes[i] ?? 0);
    // A network may hide it: a ReLU makes a zero of what is no number.
    if (dtype === "float32" && !areFinite(data.subarray(at, end), quantization)) {
      throw new Error(`The weight "${name}" in ${file} is not finite`);
    }
    at = end;
  }
}

function areFinite(bytes: Buffer, quantization: Weight["quantization"]): boolean {
  if (quantization?.dtype === "float16")
    return new Uint16Array(new Uint8Array(bytes).buffer).every(isFiniteHalf);
  if (quantization) return [quantization.scale, quantization.min].every((n) => Number.isFinite(n));
  return new Float32Array(new Uint8Array(bytes).buffer).every(Number.isFinite);
}

/** All five bits of the exponent set: infinity, or no number. */
function isFiniteHalf(bits: number): boolean {
  return (bits & 0x7c00) !== 0x7c00;
}
