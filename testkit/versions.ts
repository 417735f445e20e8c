import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { model, node, tensor, value } from "../lib/onnx/build.ts";
import { TYPE, writeModel } from "../lib/onnx/proto.ts";

export interface TimesOptions {
  /** What it multiplies its three numbers by. @default version + 1 */
  readonly factor?: number;
  /** What its golden example says it multiplies by. @default factor */
  readonly promised?: number;
  /** Changes the graph's file, before its digest is taken. */
  readonly graph?: (file: Uint8Array) => Uint8Array;
  /** Changes the manifest, after the digest was taken. */
  readonly manifest?: (manifest: TimesManifest) => object;
  /** Fails on negative numbers, which no golden example has. */
  readonly failsOnNegative?: true;
}

type TimesManifest = ReturnType<typeof manifestOf>;

/** The files of a version of the model `times` (`test/fixtures/services`): numbers in, their multiples out. */
export function timesFiles(version: number, options: TimesOptions = {}): Record<string, Uint8Array> {
  const { factor = version + 1, promised = factor, graph = (file) => file } = options;
  const file = graph(timesGraph(factor, options));
  const made = manifestOf(version, promised, file);
  const manifest = options.manifest?.(made) ?? made;
  return { "manifest.json": Buffer.from(JSON.stringify(manifest)), "model.onnx": file };
}

/** Writes a version into `models/times/<version>`, there at once as a whole. @returns its folder */
export function putTimes(models: string, version: number, options: TimesOptions = {}): string {
  mkdirSync(join(models, "times"), { recursive: true });
  const incoming = mkdtempSync(join(models, "times", ".incoming-"));
  for (const [name, bytes] of Object.entries(timesFiles(version, options))) {
    writeFileSync(join(incoming, name), bytes);
  }
  const dir = join(models, "times", String(version));
  renameSync(incoming, dir);
  return dir;
}

/** `y = factor * x`, where `x` and `y` are `[n, 3]` float32. */
export function timesGraph(
  factor: number,
  { failsOnNegative }: Pick<TimesOptions, "failsOnNegative"> = {},
): Uint8Array {
  // The square root of a negative number is none, and its square no number either.
  const root = failsOnNegative
    ? [
        node("Sqrt", ["x"], "root"),
        node("Mul", ["root", "root"], "same"),
        node("Mul", ["same", "factor"], "y"),
      ]
    : [node("Mul", ["x", "factor"], "y")];
  return writeModel(
    model({
      name: "times",
      input: [value("x", TYPE.float, ["n", 3])],
      output: [value("y", TYPE.float, ["n", 3])],
      initializer: [tensor("factor", Float32Array.of(factor), [])],
      node: root,
    }),
  );
}

function manifestOf(version: number, promised: number, file: Uint8Array) {
  const numbers = (data: readonly number[]) => ({ dtype: "float32", shape: [3], data });
  const spec = (name: string) => ({ name, dtype: "float32", shape: [3] });
  const example = [1, 0.5, 4];
  return {
    manifest: 2,
    name: "times",
    version,
    format: "onnx",
    files: [
      {
        path: "model.onnx",
        bytes: file.length,
        sha256: createHash("sha256").update(file).digest("hex"),
      },
    ],
    inputs: [spec("x")],
    outputs: [spec("y")],
    maxBatch: 64,
    kind: { name: "tensor" },
    task: { name: "tensor" },
    golden: [
      {
        inputs: { x: numbers(example) },
        outputs: { y: numbers(example.map((number) => promised * number)) },
        tolerance: 1e-5,
      },
    ],
    licence: "MIT",
    source: "made by a test",
  };
}
