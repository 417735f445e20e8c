import { access } from "node:fs/promises";
import { join } from "node:path";
import type { Tensor } from "@tensorflow/tfjs-core";
import type { EngineSpec, Runtime } from "../engine.ts";
import { dtypeOf } from "./dtypes.ts";
import { native, type SavedModel, type SavedSignature, type SavedTensor } from "./native.ts";
import { itemShape, type Loaded, runtimeOf } from "./tfjs.ts";

const TAG = "serve";
const SIGNATURE = "serving_default";

/**
 * A SavedModel of TensorFlow, as `tf.saved_model.save` and Keras' `export` write it: the folder's `saved_model.pb` is
 * the first file. Its signature `serving_default` is asked.
 *
 * @throws Error where tfjs-node is not installed: no other backend reads the format
 */
export default async function load(spec: EngineSpec): Promise<Runtime> {
  const { tf, engine } = native(spec.threads);
  await access(join(spec.dir, spec.files[0] ?? ""));
  const graphs = await tf.node.getMetaGraphsFromSavedModel(spec.dir);
  const graph = graphs.find(({ tags }) => tags.includes(TAG));
  const signature = graph?.signatureDefs[SIGNATURE];
  if (!signature) throw new Error(`The SavedModel has no signature "${SIGNATURE}" under the tag "${TAG}"`);
  const model = await tf.node.loadSavedModel(spec.dir, graph.tags, SIGNATURE);
  return runtimeOf(spec, loadedOf(model, signature), { core: tf, engine });
}

function loadedOf(model: SavedModel, { inputs, outputs }: SavedSignature): Loaded {
  const dimsOf = ({ shape = [] }: SavedTensor) => shape.map((length) => length.getSize());
  const described = ([name, tensor]: [string, SavedTensor]) => ({
    name,
    dtype: tensor.tfDtype ? dtypeOf(tensor.tfDtype) : (tensor.dtype ?? "unknown"),
    shape: itemShape(dimsOf(tensor)) ?? [],
  });
  const given = Object.entries(outputs);
  return {
    inputs: Object.entries(inputs).map(described),
    outputs: given.map(described),
    batches: [...Object.values(inputs), ...Object.values(outputs)].flatMap((each) =>
      dimsOf(each).slice(0, 1),
    ),
    async run(feeds) {
      const results = model.predict(feeds) as Readonly<Record<string, Tensor>>;
      return given.flatMap(([name]) => results[name] ?? []);
    },
    dispose: () => model.dispose(),
  };
}
