import { createRequire } from "node:module";
import util from "node:util";
import type { EngineSpec, Runtime } from "../engine.ts";
import { type Backend, loadTfjs } from "./tfjs.ts";

/** Beside the other packages, as `npm install` has it; or where `scripts/tfjs-node.sh` puts it. */
const HOMES = [import.meta.url, new URL("../../../.tfjs-node/package.json", import.meta.url).href];
const PACKAGE = "@tensorflow/tfjs-node";

/** What of tfjs-node is used beside what all backends have. */
export interface Native extends Pick<Backend, "loadGraphModel" | "loadLayersModel"> {
  readonly node: {
    getMetaGraphsFromSavedModel(dir: string): Promise<
      readonly {
        readonly tags: readonly string[];
        readonly signatureDefs: Readonly<Record<string, SavedSignature>>;
      }[]
    >;
    loadSavedModel(dir: string, tags?: readonly string[], signature?: string): Promise<SavedModel>;
  };
  readonly version: { readonly "tfjs-node": string };
}

export interface SavedModel {
  predict(inputs: object): unknown;
  dispose(): void;
}

/** By the names that callers know. */
export interface SavedSignature {
  readonly inputs: Readonly<Record<string, SavedTensor>>;
  readonly outputs: Readonly<Record<string, SavedTensor>>;
}

export interface SavedTensor {
  /** `DT_FLOAT` … */
  readonly tfDtype?: string;
  readonly dtype?: string;
  /** -1: any length. As tfjs-node reads it from the file, whatever its types say. */
  readonly shape?: readonly { getSize(): number }[];
}

/** TensorFlow itself, through tfjs-node. @throws Error where that is not installed */
export default async function load(spec: EngineSpec): Promise<Runtime> {
  const { tf, engine } = native(spec.threads);
  const { loadGraphModel, loadLayersModel } = tf;
  return loadTfjs(spec, { core: tf as unknown as Backend["core"], loadGraphModel, loadLayersModel, engine });
}

/** Whether tfjs-node can be loaded: it is installed, and with its native library. */
export function hasNative(threads: number): boolean {
  try {
    native(threads);
    return true;
  } catch {
    return false;
  }
}

/** Whether it is installed; what of it is missing shows when it is loaded. */
export function findsNative(): boolean {
  return homeOf() !== undefined;
}

/**
 * tfjs-node, loaded. Only the first call says with how many threads.
 *
 * @throws Error where it is not installed, or its library is for another machine; the message says so
 */
export function native(threads: number): { readonly tf: Native & Backend["core"]; readonly engine: string } {
  process.env["TF_NUM_INTRAOP_THREADS"] ??= String(threads);
  process.env["TF_NUM_INTEROP_THREADS"] ??= "1";
  process.env["TF_CPP_MIN_LOG_LEVEL"] ??= "2";
  // It looks for a graphics card else, and complains.
  process.env["CUDA_VISIBLE_DEVICES"] ??= "-1";
  restoreOldUtil();
  try {
    const tf = installed() as Native & Backend["core"];
    const { binding } = tf.backend() as unknown as { readonly binding?: { readonly TF_Version?: string } };
    const library = binding?.TF_Version ? ` (TensorFlow ${binding.TF_Version})` : "";
    return { tf, engine: `tfjs-node ${tf.version["tfjs-node"]}${library}` };
  } catch (error) {
    throw new Error(`${PACKAGE} cannot be used: ${(error as Error).message.split("\n")[0]}`);
  }
}

function installed(): unknown {
  const home = homeOf();
  if (!home) throw new Error("it is not installed (scripts/tfjs-node.sh)");
  return createRequire(home)(PACKAGE);
}

function homeOf(): string | undefined {
  return HOMES.find((home) => {
    try {
      return createRequire(home).resolve(PACKAGE) !== "";
    } catch {
      return false;
    }
  });
}

/** tfjs-node 4.22 calls two functions that Node 23 took out. */
function restoreOldUtil(): void {
  const old = util as unknown as Record<string, unknown>;
  old["isNullOrUndefined"] ??= (value: unknown) => value === null || value === undefined;
  old["isArray"] ??= Array.isArray;
}
