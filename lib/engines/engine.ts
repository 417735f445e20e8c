import type { Remote } from "./remote/part.ts";
import type { TensorSpec, Tensors } from "./tensors.ts";

/** `(value - mean) / std` for each channel; values are 0–255. */
export interface Normalisation {
  readonly mean: readonly number[];
  readonly std: readonly number[];
  /** The graph takes `[height, width, channels]`, as TensorFlow's do, and not planes. */
  readonly interleaved?: boolean;
}

/** What an engine loads and what it is expected to take and give. Plain data: it crosses into a process. */
export interface EngineSpec {
  /** Name of a runtime, see `runtimes.ts`. */
  readonly runtime: string;
  /** Absolute path of the folder with the model's files. */
  readonly dir: string;
  /** Paths of the files in it, as the manifest has them; the first is what the runtime opens. */
  readonly files: readonly string[];
  /** What a run is given. */
  readonly inputs: readonly TensorSpec[];
  /** What is wanted of a run; the model may have more. */
  readonly outputs: readonly TensorSpec[];
  /** Largest batch. */
  readonly maxBatch: number;
  /**
   * By name of an input `[height, width, channels]` uint8 whose model takes normalised float32 instead, as planes
   * `[channels, height, width]` or as it lies: the engine makes them.
   */
  readonly planes?: Readonly<Record<string, Normalisation>>;
  /** Where it is computed, if not here. */
  readonly remote?: Remote;
  /** Threads for one run. */
  readonly threads: number;
}

/** An input or output as a runtime reports it: it may be of a type that no manifest can ask for. */
export interface ReportedTensor extends Omit<TensorSpec, "dtype"> {
  readonly dtype: string;
}

/** What a model takes and gives, as its runtime reports it. */
export interface Signature {
  /** What computes it, for people: `ONNX Runtime 1.30.0`. */
  readonly engine?: string;
  readonly inputs: readonly ReportedTensor[];
  readonly outputs: readonly ReportedTensor[];
  /** The one size of batch the model can compute; absent: any. */
  readonly fixedBatch?: number;
}

export interface RunScope {
  /** When nobody waits for the result any more, on the clock of `performance.now()`; Infinity: never. */
  readonly deadline: number;
  /** Aborted when everyone who waited has hung up; what cannot be interrupted computes on. */
  readonly signal?: AbortSignal;
}

/**
 * What computes: one life of one loaded model. It computes one batch at a time; whoever replaces it when it dies, and
 * decides which batch goes where, stands around it (`instance.ts`, `pool.ts`).
 */
export interface Engine {
  /**
   * @param signal gives the load up
   * @throws EngineCrashedError if the model cannot be loaded
   */
  load(signal: AbortSignal): Promise<Signature>;
  /**
   * @param batch every input of the spec, `[count, …item]`
   * @returns every output of the spec, `[count, …item]`
   * @throws EngineCrashedError if the engine died under the batch
   * @throws PredictionFailedError if the runtime refused it; the engine lives on
   */
  run(batch: Tensors, count: number, scope: RunScope): Promise<Tensors>;
  /** Lets go of everything; waits for a batch that is computed. More than once is as good as once. */
  close(): Promise<void>;
  /** Resolves with the reason when the engine is dead, or was closed. */
  readonly gone: Promise<string>;
}

/** A loaded model inside an engine's process. */
export interface Runtime {
  readonly signature: Signature;
  run(batch: Tensors, count: number): Promise<Tensors>;
  close(): Promise<void>;
}

/** The default export of a runtime's module. */
export type LoadRuntime = (spec: EngineSpec) => Promise<Runtime>;
