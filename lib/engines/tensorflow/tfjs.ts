import type * as Converter from "@tensorflow/tfjs-converter";
import type * as Core from "@tensorflow/tfjs-core";
import type * as Layers from "@tensorflow/tfjs-layers";
import type { EngineSpec, ReportedTensor, Runtime } from "../engine.ts";
import { imageShape, toFloats } from "../planes.ts";
import { blankBatch } from "../signature.ts";
import { DTYPES, type DType, type Tensor, type TensorSpec, type Tensors } from "../tensors.ts";
import { dtypeOf, fromTf, toTf } from "./dtypes.ts";
import { readFiles, type TfjsFiles } from "./files.ts";

/** TensorFlow.js with a backend that is ready. */
export interface Backend {
  readonly core: typeof Core;
  readonly loadGraphModel: typeof Converter.loadGraphModel;
  readonly loadLayersModel: typeof Layers.loadLayersModel;
  /** For people: what computes. */
  readonly engine: string;
}

/** A loaded model, whichever sort it is. Tensors in and out by name. */
export interface Loaded {
  readonly inputs: readonly ReportedTensor[];
  /** What the file says of its outputs; one it says nothing of has no type. */
  readonly outputs: readonly (Omit<ReportedTensor, "dtype" | "shape"> & Partial<ReportedTensor>)[];
  /** Lengths of the first dimension, -1: any. */
  readonly batches: readonly number[];
  run(inputs: Readonly<Record<string, Core.Tensor>>, count: number): Promise<readonly Core.Tensor[]>;
  dispose(): void;
}

/**
 * A model in the format of TensorFlow.js: `model.json`, the first file, and its shards of weights. A graph model, made
 * from a SavedModel, or a layers model, made from Keras; the file says which.
 *
 * @throws Error if it cannot be loaded, or not be computed: it lacks a weight, or the backend an operator
 */
export async function loadTfjs(spec: EngineSpec, backend: Backend): Promise<Runtime> {
  const files = await readFiles(spec.dir, spec.files);
  const handler = { load: async () => files.artifacts };
  const loaded =
    files.format === "graph-model"
      ? graphModel(await backend.loadGraphModel(handler), files)
      : layersModel(await backend.loadLayersModel(handler));
  return runtimeOf(spec, loaded, backend);
}

/** Runs a loaded model in the engine's terms. It is tried once: what a file does not say of its outputs, that shows. */
export async function runtimeOf(
  spec: EngineSpec,
  loaded: Loaded,
  { core, engine }: Pick<Backend, "core" | "engine">,
): Promise<Runtime> {
  const names = loaded.outputs.map(({ name }) => name);
  const compute = async (batch: Tensors, count: number): Promise<[string, Core.Tensor][]> => {
    const feeds = Object.fromEntries(
      Object.entries(batch).map(([name, tensor]) => [name, feedOf(core, spec, name, tensor)]),
    );
    try {
      const results = await loaded.run(feeds, count);
      return results.map((result, i) => [names[i] ?? "", result]);
    } finally {
      core.dispose(feeds);
    }
  };
  const outputs = await reportedOutputs(core, loaded, () => compute(blankOf(spec, loaded), 1));
  const wanted = new Map<string, DType>(spec.outputs.map(({ name, dtype }) => [name, dtype]));
  const fixed = loaded.batches.find((length) => length > 0);
  return {
    signature: {
      engine,
      inputs: loaded.inputs.map((input) => asGiven(spec, input)),
      outputs,
      ...(fixed === undefined ? {} : { fixedBatch: fixed }),
    },
    async run(batch, count) {
      const results = await compute(batch, count);
      try {
        const kept = results.filter(([name]) => wanted.has(name));
        return Object.fromEntries(
          await Promise.all(
            kept.map(async ([name, result]) => [name, await fromTf(result, wanted.get(name))] as const),
          ),
        );
      } finally {
        core.dispose(results.map(([, result]) => result));
      }
    },
    close: async () => loaded.dispose(),
  };
}

function feedOf(core: typeof Core, { planes }: EngineSpec, name: string, tensor: Tensor): Core.Tensor {
  const normalisation = planes?.[name];
  return toTf(core, normalisation ? toFloats(tensor, normalisation) : tensor);
}

/** An image that the engine normalises counts as the image it is made of. */
function asGiven({ planes, inputs }: EngineSpec, input: ReportedTensor): ReportedTensor {
  const given = planes?.[input.name] && inputs.find(({ name }) => name === input.name);
  if (!given || input.dtype !== "float32") return input;
  return { ...input, dtype: "uint8", shape: imageShape(input.shape, planes?.[input.name]) };
}

/** One item of zeros of the model's own inputs; where it leaves a length open, of the spec's. */
function blankOf(spec: EngineSpec, { inputs }: Loaded): Tensors {
  const wanted = inputs.map((input): TensorSpec => {
    const known = spec.inputs.find(({ name }) => name === input.name);
    const given = asGiven(spec, input);
    const shape = given.shape.map((length, i) => length ?? known?.shape[i] ?? null);
    const dtype = DTYPES.find((each) => each === given.dtype) ?? known?.dtype ?? "float32";
    return { name: input.name, dtype, shape };
  });
  return blankBatch({ ...spec, inputs: wanted }, 1);
}

async function reportedOutputs(
  core: typeof Core,
  { outputs }: Loaded,
  tryOut: () => Promise<[string, Core.Tensor][]>,
): Promise<ReportedTensor[]> {
  const results = await tryOut();
  const found = outputs.map(({ name, dtype, shape }, i): ReportedTensor => {
    const result = results[i]?.[1];
    return {
      name,
      dtype: dtype ?? result?.dtype ?? "unknown",
      shape: shape ?? result?.shape.slice(1) ?? [],
    };
  });
  core.dispose(results.map(([, result]) => result));
  return found;
}

/** `signature` of a `model.json`, as far as it is read. */
interface SignatureEntry {
  readonly dtype?: string;
  readonly tensorShape?: {
    readonly dim?: readonly { readonly size: string | number }[];
    readonly unknownRank?: boolean;
  };
}

function graphModel(model: Converter.GraphModel, { signature }: TfjsFiles): Loaded {
  const described = (kind: "inputs" | "outputs", infos: readonly TensorInfo[]) => {
    const named = Object.entries(signature?.[kind] ?? {}) as [string, SignatureEntry][];
    if (named.length === 0) return infos.map(({ name, dtype, shape }) => ({ name, dtype, dims: shape }));
    return named.map(([name, { dtype, tensorShape }]) => ({
      name,
      dtype: dtype && dtypeOf(dtype),
      dims: tensorShape?.unknownRank ? undefined : (tensorShape?.dim ?? []).map(({ size }) => Number(size)),
    }));
  };
  const inputs = described("inputs", model.inputs);
  const outputs = described("outputs", model.outputs);
  const names = outputs.map(({ name }) => name);
  /** Loops and conditions compute bit by bit; which graph has them, the first run says. */
  let stepwise = false;
  return {
    inputs: inputs.map(({ name, dtype = "unknown", dims }) => ({
      name,
      dtype,
      shape: itemShape(dims) ?? [],
    })),
    outputs: outputs.map(({ name, dtype, dims }) => {
      const shape = itemShape(dims);
      return { name, ...(dtype ? { dtype } : {}), ...(shape ? { shape } : {}) };
    }),
    batches: [...inputs, ...outputs].flatMap(({ dims }) => dims?.slice(0, 1) ?? []),
    async run(feeds) {
      if (!stepwise) {
        try {
          return listOf(model.execute(feeds, names));
        } catch (error) {
          if (!/executeAsync/.test((error as Error).message)) throw error;
          stepwise = true;
        }
      }
      return listOf(await model.executeAsync(feeds, names));
    },
    dispose: () => model.dispose(),
  };
}

/** An input or output as TensorFlow.js describes it. */
interface TensorInfo {
  readonly name: string;
  readonly dtype?: string;
  readonly shape?: readonly number[];
}

function layersModel(model: Layers.LayersModel): Loaded {
  // Keras calls them by their layers; a sequential model lists no names here.
  const described = (tensors: readonly Layers.SymbolicTensor[]) =>
    tensors.map(({ sourceLayer, dtype, shape }) => ({
      name: sourceLayer.name,
      dtype: dtype as string,
      shape: shape.slice(1),
    }));
  const inputs = described(model.inputs);
  const outputs = described(model.outputs);
  return {
    inputs,
    outputs,
    batches: [...model.inputs, ...model.outputs].map(({ shape }) => shape[0] ?? -1),
    async run(feeds, count) {
      const list = inputs.flatMap(({ name }) => feeds[name] ?? []);
      return listOf(model.predict(list, { batchSize: count }));
    },
    dispose: () => model.dispose(),
  };
}

/** Without the batch; -1 is any length. */
export function itemShape(dims: readonly number[] | undefined): (number | null)[] | undefined {
  return dims?.slice(1).map((length) => (length < 0 ? null : length));
}

function listOf(result: Core.Tensor | Core.Tensor[]): Core.Tensor[] {
  return Array.isArray(result) ? result : [result];
}
