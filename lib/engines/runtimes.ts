import type { Engine, EngineSpec } from "./engine.ts";
import { EngineProcess, type EngineProcessOptions } from "./process.ts";
import { type RemoteEngines, remoteEngines } from "./remote/engine.ts";

/** How a model of some format is computed. */
export type RuntimeEntry =
  /** URL of a module whose default export is a `LoadRuntime`; it runs in a process of its own. */
  | { readonly module: string }
  /**
   * What it is computed with is elsewhere: it takes no process and no core here, and may be away for a while.
   *
   * @throws StartError if it is not said where
   */
  | { readonly elsewhere: (name: string, spec: Omit<EngineSpec, "threads">) => RemoteEngines };

const here = (path: string) => ({ module: new URL(path, import.meta.url).href });

const RUNTIMES = new Map<string, RuntimeEntry>([
  ["onnx", here("./onnx.ts")],
  ["tfjs", here("./tensorflow/any.ts")],
  // By name for who wants one and not the other.
  ["tfjs-wasm", here("./tensorflow/wasm.ts")],
  ["tfjs-node", here("./tensorflow/native.ts")],
  ["saved-model", here("./tensorflow/saved-model.ts")],
  ["remote", { elsewhere: (name, { remote }) => remoteEngines(name, remote) }],
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

/** @throws Error if there is no such runtime, or what it computes is elsewhere; the message lists those there are */
export function createEngine(spec: EngineSpec, options: EngineProcessOptions): Engine {
  const entry = entryOf(spec.runtime);
  if ("elsewhere" in entry) throw new Error(`What "${spec.runtime}" computes is elsewhere`);
  return new EngineProcess(entry.module, spec, options);
}

/** Of a model that is computed elsewhere; undefined: of one that is computed here. @throws see {@link RuntimeEntry} */
export function enginesElsewhere(name: string, spec: Omit<EngineSpec, "threads">): RemoteEngines | undefined {
  const entry = entryOf(spec.runtime);
  return "elsewhere" in entry ? entry.elsewhere(name, spec) : undefined;
}

function entryOf(runtime: string): RuntimeEntry {
  const entry = RUNTIMES.get(runtime);
  if (entry) return entry;
  throw new Error(`Expected a format of ${runtimeNames().join(", ")} but received "${runtime}"`);
}
