import "./no-telemetry.ts";
import { resolve } from "node:path";
import { env, InferenceSession, Tensor as OrtTensor } from "onnxruntime-node";
import type { EngineSpec, Normalisation, ReportedTensor, Runtime, Signature } from "./engine.ts";
import { imageShape, toFloats } from "./planes.ts";
import type { DType, Tensor } from "./tensors.ts";

/** ONNX Runtime on the CPU. The first file is the graph; others may hold its weights. */
export default async function load(spec: EngineSpec): Promise<Runtime> {
  const session = await InferenceSession.create(resolve(spec.dir, spec.files[0] ?? ""), {
    intraOpNumThreads: spec.threads,
    interOpNumThreads: 1,
    graphOptimizationLevel: "all",
    logSeverityLevel: 3,
    // Its threads would else burn their cores between two runs, which the decoder needs.
    extra: { session: { intra_op: { allow_spinning: "0" } } },
  });
  const names = spec.outputs.map(({ name }) => name);
  return {
    signature: signatureOf(session, spec),
    async run(batch) {
      const feeds = Object.fromEntries(
        Object.entries(batch).map(([name, tensor]) => [name, toOrt(tensor, spec.planes?.[name])]),
      );
      const result = await session.run(feeds, names);
      return Object.fromEntries(Object.entries(result).map(([name, tensor]) => [name, fromOrt(tensor)]));
    },
    close: () => session.release(),
  };
}

function toOrt(tensor: Tensor, planes: Normalisation | undefined): OrtTensor {
  const { dtype, data, shape } = planes ? toFloats(tensor, planes) : tensor;
  return new OrtTensor(dtype, data as never, shape);
}

function fromOrt({ type, dims, data }: OrtTensor): Tensor {
  if (type === "string") return { dtype: "string", shape: dims, data: data as string[] };
  // A copy: the runtime may own the memory it answers in.
  return { dtype: type as DType, shape: dims, data: (data as Uint8Array).slice() } as Tensor;
}

/** As the spec's `inputs` are given to `run`: planes count as the image they are made of. */
function signatureOf(session: InferenceSession, { planes }: EngineSpec): Signature {
  const described = [...session.inputMetadata, ...session.outputMetadata].filter((meta) => meta.isTensor);
  const batches = new Set(
    described.map(({ shape }) => shape[0]).filter((length) => typeof length === "number"),
  );
  const inputs = session.inputMetadata.map((meta) => {
    const spec = specOf(meta);
    return planes?.[spec.name] && spec.dtype === "float32"
      ? { ...spec, dtype: "uint8", shape: imageShape(spec.shape, planes[spec.name]) }
      : spec;
  });
  const [fixedBatch] = batches;
  return {
    engine: `ONNX Runtime ${env.versions.node ?? env.versions.common}`,
    inputs,
    outputs: session.outputMetadata.map(specOf),
    ...(fixedBatch === undefined ? {} : { fixedBatch }),
  };
}

/** Maps and sequences are no tensors: their type is none that a manifest can name. */
function specOf(meta: InferenceSession.ValueMetadata): ReportedTensor {
  if (!meta.isTensor) return { name: meta.name, dtype: "no tensor", shape: [] };
  const shape = meta.shape.slice(1).map((length) => (typeof length === "number" ? length : null));
  return { name: meta.name, dtype: meta.type, shape };
}
