/** TensorFlow Serving's REST (https://www.tensorflow.org/tfx/serving/api_rest), tensors by name ("columnar"). */
import { z } from "zod";
import type { ReportedTensor } from "../engine.ts";
import { dtypeOf } from "../tensorflow/dtypes.ts";
import type { Tensor, TensorSpec } from "../tensors.ts";
import { faultOf, jsonOf, type RemoteProtocol } from "./protocol.ts";
import type { Target } from "./target.ts";
import { nested, shapeOf, tensorFrom } from "./values.ts";

const SIGNATURE = "serving_default";

const described = z.record(
  z.string(),
  z.looseObject({
    dtype: z.string(),
    tensor_shape: z.looseObject({ dim: z.array(z.looseObject({ size: z.string() })).optional() }),
  }),
);
const metadata = z.looseObject({
  metadata: z.looseObject({
    signature_def: z.looseObject({
      signature_def: z.record(z.string(), z.looseObject({ inputs: described, outputs: described })),
    }),
  }),
});
const status = z.looseObject({ model_version_status: z.array(z.looseObject({ state: z.string() })) });

export function tensorflowServing({ model, version }: Target): RemoteProtocol {
  const path = `/v1/models/${model}${version ? `/versions/${version}` : ""}`;
  return {
    name: "TensorFlow Serving",
    ready: () => ({ method: "GET", path }),
    isReady(response) {
      if (response.status !== 200) return false;
      const { data } = status.safeParse(jsonOf(response.body));
      return data?.model_version_status.some(({ state }) => state === "AVAILABLE") ?? false;
    },
    metadata: () => ({ method: "GET", path: `${path}/metadata` }),
    signature(response) {
      if (response.status !== 200) return undefined;
      const signature = metadata.parse(jsonOf(response.body)).metadata.signature_def.signature_def[SIGNATURE];
      if (!signature) throw new Error(`it has no signature "${SIGNATURE}"`);
      return { inputs: reported(signature.inputs), outputs: reported(signature.outputs) };
    },
    infer(batch) {
      const inputs = Object.fromEntries(
        Object.entries(batch).map(([name, tensor]) => [name, nested(tensor)]),
      );
      return {
        method: "POST",
        path: `${path}:predict`,
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ signature_name: SIGNATURE, inputs }),
      };
    },
    outputs({ body }, wanted) {
      const { outputs } = jsonOf(body);
      if (outputs === undefined) throw new Error("its answer has no outputs");
      // Of a model with one output it is that, without its name.
      const single = wanted.length === 1 && (Array.isArray(outputs) || typeof outputs !== "object");
      const byName = (single ? { [wanted[0]?.name ?? ""]: outputs } : outputs) as Readonly<
        Record<string, unknown>
      >;
      return Object.fromEntries(
        wanted.flatMap((spec) =>
          byName[spec.name] === undefined ? [] : [[spec.name, read(spec, byName[spec.name])]],
        ),
      );
    },
    fault: faultOf,
  };
}

function read({ name, dtype }: TensorSpec, values: unknown): Tensor {
  return tensorFrom(name, dtype, shapeOf(values), Array.isArray(values) ? values : [values]);
}

function reported(tensors: z.infer<typeof described>): ReportedTensor[] {
  return Object.entries(tensors).map(
    ([
      name,
      {
        dtype,
        tensor_shape: { dim = [] },
      },
    ]) => ({
      name,
      dtype: dtypeOf(dtype),
      shape: dim.slice(1).map(({ size }) => (Number(size) < 0 ? null : Number(size))),
    }),
  );
}
