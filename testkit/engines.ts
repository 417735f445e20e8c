import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { EngineSpec } from "../lib/engines/engine.ts";
import type { Tensors } from "../lib/engines/tensors.ts";
import { unrulyModel } from "./onnx.ts";

/** A folder with a model of {@link unrulyModel}, and what an engine has to know of it. */
export function unrulySpec(
  file: Uint8Array = unrulyModel(),
): EngineSpec & { readonly [Symbol.dispose]: () => void } {
  const dir = mkdtempSync(join(tmpdir(), "unruly-"));
  writeFileSync(join(dir, "model.onnx"), file);
  return {
    runtime: "onnx",
    dir,
    files: ["model.onnx"],
    inputs: [
      { name: "x", dtype: "float32", shape: [2] },
      { name: "loops", dtype: "int64", shape: [1] },
      { name: "floats", dtype: "int64", shape: [1] },
    ],
    outputs: [{ name: "y", dtype: "float32", shape: [2] }],
    maxBatch: 4,
    threads: 1,
    [Symbol.dispose]: () => rmSync(dir, { recursive: true, force: true }),
  };
}

/** Rounds that the unruly model never gets to the end of. */
export const ENDLESS = 1e12;

/** One item for {@link unrulyModel}: it answers `[2 * value, 2 * value]`. */
export function unrulyItem(value: number, { loops = 0, floats = 0 } = {}): Tensors {
  return {
    x: { dtype: "float32", shape: [1, 2], data: Float32Array.of(value, value) },
    loops: { dtype: "int64", shape: [1, 1], data: BigInt64Array.of(BigInt(loops)) },
    floats: { dtype: "int64", shape: [1, 1], data: BigInt64Array.of(BigInt(floats)) },
  };
}

/** Whether a process exists. One that has ended and whose parent has not looked yet does not. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
