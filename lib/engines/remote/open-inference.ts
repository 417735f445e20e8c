/**
 * The Open Inference Protocol v2 over HTTP (https://github.com/kserve/open-inference-protocol), and its binary extension
 * (Triton's `protocol/extension_binary_data.md`): tensors as bytes behind the JSON, whose length a header says.
 */
import { z } from "zod";
import type { ReportedTensor } from "../engine.ts";
import { type DType, elements, type Tensor, type TensorSpec, type Tensors } from "../tensors.ts";
import { faultOf, type HttpResponse, jsonOf, type RemoteProtocol } from "./protocol.ts";
import type { Target } from "./target.ts";
import { listed, tensorFrom } from "./values.ts";

const HEADER = "inference-header-content-length";
const DATATYPES: Readonly<Record<DType, string>> = {
  uint8: "UINT8",
  int32: "INT32",
  int64: "INT64",
  float32: "FP32",
  string: "BYTES",
};

const described = z.looseObject({
  name: z.string(),
  datatype: z.string(),
  shape: z.array(z.union([z.number(), z.string()])),
});
const metadata = z.looseObject({
  inputs: z.array(described).optional(),
  outputs: z.array(described).optional(),
});
const answer = z.looseObject({
  model_version: z.string().nullish(),
  outputs: z.array(
    z.looseObject({
      name: z.string(),
      datatype: z.string(),
      shape: z.array(z.int().min(0)),
      data: z.array(z.unknown()).optional(),
      parameters: z.looseObject({ binary_data_size: z.int().min(0).optional() }).nullish(),
    }),
  ),
});

export function openInference({ model, version, binary }: Target): RemoteProtocol {
  const path = `/v2/models/${model}${version ? `/versions/${version}` : ""}`;
  return {
    name: "Open Inference Protocol",
    ready: () => ({ method: "GET", path: `${path}/ready` }),
    isReady: ({ status, body }) => {
      if (status !== 200) return false;
      // Some say so in the body.
      return !/"ready"\s*:\s*false/.test(body.toString("utf8"));
    },
    metadata: () => ({ method: "GET", path }),
    signature({ status, body }) {
      if (status !== 200) return undefined;
      const { inputs = [], outputs = [] } = metadata.parse(jsonOf(body));
      return inputs.length > 0 && outputs.length > 0
        ? { inputs: inputs.map(reported), outputs: outputs.map(reported) }
        : undefined;
    },
    infer(batch, outputs) {
      const inputs = Object.entries(batch);
      const wanted = outputs.map(({ name }) => ({
        name,
        ...(binary ? { parameters: { binary_data: true } } : {}),
      }));
      if (!binary) {
        const body = {
          inputs: inputs.map(([name, tensor]) => ({ ...head(name, tensor), data: listed(tensor) })),
          outputs: wanted,
        };
        return {
          method: "POST",
          path: `${path}/infer`,
          headers: { "content-type": "application/json" },
          body: JSON.stringify(body),
        };
      }
      const parts = inputs.map(([, tensor]) => bytesOf(tensor));
      const json = Buffer.from(
        JSON.stringify({
          inputs: inputs.map(([name, tensor], i) => ({
            ...head(name, tensor),
            parameters: { binary_data_size: parts[i]?.length },
          })),
          outputs: wanted,
        }),
      );
      return {
        method: "POST",
        path: `${path}/infer`,
        headers: { "content-type": "application/octet-stream", [HEADER]: String(json.length) },
        body: Buffer.concat([json, ...parts]),
      };
    },
    outputs: (response, outputs) => readOutputs(response, outputs, version),
    fault: faultOf,
  };
}

function head(name: string, { dtype, shape }: Tensor): object {
  return { name, shape, datatype: DATATYPES[dtype] };
}

function reported({ name, datatype, shape }: z.infer<typeof described>): ReportedTensor {
  const dtype = dtypeOf(datatype) ?? datatype;
  return { name, dtype, shape: shape.slice(1).map((length) => (Number(length) < 0 ? null : Number(length))) };
}

function dtypeOf(datatype: string): DType | undefined {
  return (Object.keys(DATATYPES) as DType[]).find((dtype) => DATATYPES[dtype] === datatype);
}

function readOutputs(
  { headers, body }: HttpResponse,
  wanted: readonly TensorSpec[],
  version: string | undefined,
): Tensors {
  const length = headers[HEADER] === undefined ? body.length : Number(headers[HEADER]);
  if (!(Number.isSafeInteger(length) && length >= 0 && length <= body.length)) {
    throw new Error(`its answer has ${body.length} bytes, of which JSON are ${String(headers[HEADER])}`);
  }
  const parsed = answer.safeParse(jsonOf(body.subarray(0, length)));
  if (!parsed.success) throw new Error("its answer is none of the Open Inference Protocol");
  const { outputs, model_version: answered } = parsed.data;
  if (version && answered && answered !== version) {
    throw new Error(`version ${answered.slice(0, 50)} answered and not ${version}`);
  }
  let at = length;
  const tensors: [string, Tensor][] = [];
  for (const { name, datatype, shape, data, parameters } of outputs) {
    const size = parameters?.binary_data_size;
    const bytes = size === undefined ? undefined : body.subarray(at, at + size);
    at += size ?? 0;
    if (at > body.length) throw new Error(`its answer ends within output "${name.slice(0, 100)}"`);
    if (!wanted.some((spec) => spec.name === name)) continue;
    const dtype = dtypeOf(datatype);
    if (!dtype) throw new Error(`output "${name}" is ${datatype.slice(0, 20)}`);
    tensors.push([
      name,
      bytes ? fromBytes(name, dtype, shape, bytes) : tensorFrom(name, dtype, shape, data ?? []),
    ]);
  }
  return Object.fromEntries(tensors);
}

/** Little-endian; each text has its length before it, in four bytes. */
function bytesOf({ dtype, data }: Tensor): Buffer {
  if (dtype === "string") {
    return Buffer.concat(
      data.flatMap((text) => {
        const bytes = Buffer.from(text);
        const length = Buffer.alloc(4);
        length.writeUInt32LE(bytes.length);
        return [length, bytes];
      }),
    );
  }
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}

const ARRAYS = { uint8: Uint8Array, int32: Int32Array, int64: BigInt64Array, float32: Float32Array } as const;

function fromBytes(name: string, dtype: DType, shape: readonly number[], bytes: Buffer): Tensor {
  if (dtype === "string") return { dtype, shape, data: textsOf(name, bytes) };
  const Typed = ARRAYS[dtype];
  const expected = elements(shape) * Typed.BYTES_PER_ELEMENT;
  if (bytes.length !== expected) {
    throw new Error(`output "${name}" has ${bytes.length} bytes for ${dtype}[${shape.join(", ")}]`);
  }
  // A copy: what lies in a body need not lie where wider numbers may.
  return { dtype, shape, data: new Typed(new Uint8Array(bytes).buffer) } as Tensor;
}

function textsOf(name: string, bytes: Buffer): string[] {
  const texts: string[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = at + 4 <= bytes.length ? bytes.readUInt32LE(at) : Number.POSITIVE_INFINITY;
    at += 4 + length;
    if (at > bytes.length) throw new Error(`output "${name}" ends within a text`);
    texts.push(bytes.toString("utf8", at - length, at));
  }
  return texts;
}
