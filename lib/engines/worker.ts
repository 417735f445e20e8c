import { parentPort, workerData } from "node:worker_threads";
import type { EngineSpec, FromWorker, LoadRuntime, ToWorker } from "./engine.ts";

/**
 * The thread an engine lives in: ONNX Runtime's `run` blocks its thread for as long as it computes. Loads, warms up,
 * says so, then answers one batch after the other.
 */
const port = parentPort;
if (!port) throw new Error("This module runs in a worker thread");
const spec = workerData as EngineSpec;
const send = (message: FromWorker, transfer: ArrayBuffer[] = []) => port.postMessage(message, transfer);

const began = performance.now();
const { default: load } = (await import(spec.runtime)) as { default: LoadRuntime };
const runtime = await load(spec);
const loaded = performance.now();
const items = spec.itemShape.reduce((product, side) => product * side, 1);
await runtime.run(new Uint8Array(items), 1);
const warm = performance.now();

port.on("message", async ({ id, pixels, count }: ToWorker) => {
  const start = performance.now();
  try {
    // A copy: the runtime may own the memory it answers in, and a transfer would take it away.
    const output = new Float32Array(await runtime.run(pixels, count));
    send({ type: "done", id, output, computeMs: performance.now() - start }, [output.buffer]);
  } catch (error) {
    send({ type: "failed", id, reason: (error as Error).message });
  }
});
send({ type: "ready", loadMs: loaded - began, warmUpMs: warm - loaded });
