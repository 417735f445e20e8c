import type { Engine, EngineSpec } from "./engine.ts";
import { EngineProcess, type EngineProcessOptions } from "./process.ts";

/** How a model of some format is computed. */
export type RuntimeEntry =
  /** URL of a module whose default export is a `LoadRuntime`; it runs in a process of its own. */
  | { readonly module: string }
  /** An engine that needs no process here: what it computes with is elsewhere. */
  | { readonly create: (spec: EngineSpec, options: EngineProcessOptions) => Engine };

const here = (path: string) => ({ module: new URL(path, import.meta.url).href });

const RUNTIMES = new Map<string, RuntimeEntry>([
  ["onnx", here("./onnx.ts")],
  ["tfjs", here("./tensorflow/any.ts")],
  // By name for who wants one and not the other.
  ["tfjs-wasm", here("./tensorflow/wasm.ts")],
  ["tfjs-node", here("./tensorflow/native.ts")],
  ["saved-model", here("./tensorflow/saved-model.ts")],
]);

/**
 * Adds a runtime under the `format` that manifests call it by.
 *
 * @returns a function that takes it out again
 * @throws Error if the name is taken
 */
export function registerRuntime(name: string, entry: RuntimeEntry): () => void {
  if (RUNTIMES.has(name)) throw new Error(`There is a runtime "${name}" already`);
  RUNTIMES.set(name, entry);
  return () => void RUNTIMES.delete(name);
}

/** The `format`s there are runtimes for. */
export function runtimeNames(): readonly string[] {
  return [...RUNTIMES.keys()];
}

/** @throws Error if there is no such runtime; the message lists those there are */
export function createEngine(spec: EngineSpec, options: EngineProcessOptions): Engine {
  const entry = RUNTIMES.get(spec.runtime);
  if (!entry)
    throw new Error(`Expected a format of ${runtimeNames().join(", ")} but received "${spec.runtime}"`);
  return "module" in entry ? new EngineProcess(entry.module, spec, options) : entry.create(spec, options);
}
