import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { EngineSpec } from "../lib/engines/engine.ts";
import { findsNative } from "../lib/engines/tensorflow/native.ts";

/** Models made with TensorFlow by `test/fixtures/tensorflow/make.py`, and what it answered. */
export const TENSORFLOW = resolve(import.meta.dirname, "../test/fixtures/tensorflow");

export interface TensorflowGolden {
  /** Two images `[8, 8, 3]` in -1..1, and TensorFlow's probabilities of them. */
  readonly image: { readonly inputs: readonly number[][]; readonly probabilities: readonly number[][] };
  /** `[bytes, counts]` of each of two items, and TensorFlow's answers. */
  readonly mixed: {
    readonly inputs: readonly (readonly [readonly number[], readonly number[]])[];
    readonly answers: readonly {
      readonly best: number;
      readonly sum: number;
      readonly rounds: readonly number[];
    }[];
  };
}

export const tensorflowGolden = (dir = TENSORFLOW): TensorflowGolden =>
  JSON.parse(readFileSync(join(dir, "golden.json"), "utf8")) as TensorflowGolden;

/** The runtimes for TensorFlow.js that can be had here; `scripts/tfjs-node.sh` adds the second. */
export const tfjsRuntimes = (): string[] => ["tfjs-wasm", ...(findsNative() ? ["tfjs-node"] : [])];

/** Where `uint8` is normalised to what the image models want. */
export const NORMALISATION = { mean: [127.5, 127.5, 127.5], std: [127.5, 127.5, 127.5], interleaved: true };

const SPECS = {
  graph: {
    inputs: [{ name: "image", dtype: "float32", shape: [8, 8, 3] }],
    outputs: [{ name: "label", dtype: "float32", shape: [3] }],
  },
  mixed: {
    inputs: [
      { name: "bytes", dtype: "uint8", shape: [4] },
      { name: "counts", dtype: "int64", shape: [4] },
    ],
    outputs: [
      { name: "best", dtype: "int64", shape: [] },
      { name: "sum", dtype: "int32", shape: [] },
      { name: "rounds", dtype: "int32", shape: [4] },
    ],
  },
} as const;

/** A copy of one of the models that a test may spoil, as its engine is told of it. */
export function tensorflowSpec(
  model: "graph" | "layers" | "saved" | "mixed",
  runtime: string,
  threads = 1,
): EngineSpec & { readonly [Symbol.dispose]: () => void } {
  const dir = mkdtempSync(join(tmpdir(), "tensorflow-"));
  cpSync(join(TENSORFLOW, model), dir, { recursive: true });
  const first = model === "saved" ? "saved_model.pb" : "model.json";
  const others = readdirSync(dir, { recursive: true, encoding: "utf8" }).filter((path) =>
    /\.(bin|index)$|data-/.test(path),
  );
  return {
    ...(model === "mixed" ? SPECS.mixed : SPECS.graph),
    runtime,
    dir,
    files: [first, ...others],
    maxBatch: 4,
    threads,
    [Symbol.dispose]: () => rmSync(dir, { recursive: true, force: true }),
  };
}
