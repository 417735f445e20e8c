/** The runtimes by the `format` of a model's manifest. */
const RUNTIMES: Readonly<Record<string, string>> = { onnx: new URL("./onnx.ts", import.meta.url).href };

/** @throws if there is no runtime for the format */
export function runtimeOf(format: string): string {
  const runtime = RUNTIMES[format];
  if (runtime) return runtime;
  throw new Error(`Expected a format of ${Object.keys(RUNTIMES).join(", ")} but received "${format}"`);
}

/** `(value - mean) / std` for each channel; values are 0–255. */
export interface Normalisation {
  readonly mean: readonly number[];
  readonly std: readonly number[];
}

/** What an engine loads. Plain data: it crosses into a worker thread. */
export interface EngineSpec {
  /** URL of the module whose default export is the runtime's {@link LoadRuntime}. */
  readonly runtime: string;
  /** Absolute path of the weights. */
  readonly file: string;
  /** Name of the graph's input and output. */
  readonly inputTensor: string;
  readonly outputTensor: string;
  /** Shape of one item as it comes in, e.g. `[144, 144, 3]`: uint8, the channels last. */
  readonly itemShape: readonly number[];
  /** Absent: the graph takes the items as they are. Else it takes float32 planes `[channels, height, width]`. */
  readonly planes?: Normalisation;
  /** Threads for one run. */
  readonly threads: number;
}

/**
 * A loaded model inside its thread. `load` is a module's default export; warm-up is a run on zeros, which the
 * worker does for every runtime.
 */
export interface Runtime {
  /**
   * @param pixels `[count, …itemShape]` uint8
   * @returns `[count, outputs]` float32
   */
  run(pixels: Uint8Array, count: number): Promise<Float32Array>;
  dispose(): Promise<void>;
}

export type LoadRuntime = (spec: EngineSpec) => Promise<Runtime>;

/** Messages between the host and its worker. */
export type ToWorker = { readonly id: number; readonly pixels: Uint8Array; readonly count: number };
export type FromWorker =
  | { readonly type: "ready"; readonly loadMs: number; readonly warmUpMs: number }
  | { readonly type: "done"; readonly id: number; readonly output: Float32Array; readonly computeMs: number }
  | { readonly type: "failed"; readonly id: number; readonly reason: string };
