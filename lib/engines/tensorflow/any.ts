import type { EngineSpec, Runtime } from "../engine.ts";
import loadNative, { hasNative } from "./native.ts";
import loadWasm from "./wasm.ts";

/** With tfjs-node where it is installed, else with WebAssembly. Which of them it is, the signature says. */
export default function load(spec: EngineSpec): Promise<Runtime> {
  return hasNative(spec.threads) ? loadNative(spec) : loadWasm(spec);
}
