import { createRequire, syncBuiltinESMExports } from "node:module";
import os from "node:os";
import { dirname, join } from "node:path";
import { Worker } from "node:worker_threads";
import type { EngineSpec, Runtime } from "../engine.ts";
import { type Backend, loadTfjs } from "./tfjs.ts";

const require = createRequire(import.meta.url);
const PACKAGE = "@tensorflow/tfjs-backend-wasm";
/** The same program as in the package's own bundle, as files: threads in Node load it from there. */
const PROGRAM = join(
  dirname(require.resolve(`${PACKAGE}/package.json`)),
  "wasm-out",
  "tfjs-backend-wasm-threaded-simd",
);

/** TensorFlow.js on its WebAssembly backend: it needs nothing that is not in its npm packages. */
export default async function load(spec: EngineSpec): Promise<Runtime> {
  return loadTfjs(spec, await wasmBackend(spec.threads));
}

/** @param threads from 1; more than one where the processor has the instructions for it */
async function wasmBackend(threads: number): Promise<Backend> {
  const core = require("@tensorflow/tfjs-core") as Backend["core"];
  const wasm = require(PACKAGE) as {
    setThreadsCount(count: number): void;
    getThreadsCount(): number;
    version_wasm: string;
  };
  // Else it recommends tfjs-node to whoever reads why an engine died.
  core.env().set("IS_TEST", true);
  const simd = await core.env().getAsync("WASM_HAS_SIMD_SUPPORT");
  if (threads > 1 && simd) enableThreads(core, threads);
  wasm.setThreadsCount(threads);
  if (!(await core.setBackend("wasm")))
    throw new Error("The WASM backend of TensorFlow.js cannot be started");
  await core.ready();
  const { loadGraphModel } = require("@tensorflow/tfjs-converter") as Pick<Backend, "loadGraphModel">;
  const { loadLayersModel } = require("@tensorflow/tfjs-layers") as Pick<Backend, "loadLayersModel">;
  const extras = [...(simd ? ["SIMD"] : []), ...(wasm.getThreadsCount() > 1 ? ["threads"] : [])].join(", ");
  const engine = `TensorFlow.js ${wasm.version_wasm}, WASM${extras ? ` (${extras})` : ""}`;
  return { core, loadGraphModel, loadLayersModel, engine };
}

/**
 * The backend has threads for browsers; in Node it does without (https://github.com/tensorflow/tfjs/issues/3830), as
 * Node's workers take neither a program nor a script from a blob's address. They are given files instead.
 */
function enableThreads(core: Backend["core"], threads: number): void {
  const { wasmWorkerContents } = require(`${PROGRAM}.worker.js`) as { readonly wasmWorkerContents: string };
  class ThreadWorker extends Worker {
    constructor() {
      // It is text for a blob, in which line ends within texts are written out.
      super(wasmWorkerContents.replaceAll("\n", "\\n"), { eval: true });
    }
    override postMessage(message: { readonly cmd?: string }, transfer?: readonly []): void {
      const sent = message.cmd === "load" ? { ...message, urlOrBlob: `${PROGRAM}.js` } : message;
      super.postMessage(sent, transfer);
    }
  }
  // The backend assigns Node's own worker before it makes one.
  Object.defineProperty(globalThis, "Worker", { configurable: true, get: () => ThreadWorker, set: () => {} });
  core.env().set("WASM_HAS_MULTITHREAD_SUPPORT", true);
  // It takes half of the cores that it sees at most, as half of a browser's are siblings of the others.
  const [cpu] = os.cpus();
  os.cpus = () => new Array<os.CpuInfo>(2 * threads).fill(cpu as os.CpuInfo);
  syncBuiltinESMExports();
}
