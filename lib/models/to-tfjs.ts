import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createEngine } from "../engines/runtimes.ts";
import type { Tensor } from "../engines/tensors.ts";
import { wholeCores } from "../load/cgroup.ts";
import { simplified } from "../onnx/calibrate.ts";
import { dequantize } from "../onnx/dequantize.ts";
import { readModel, writeModel } from "../onnx/proto.ts";
import { SHARD, toTfjs } from "../onnx/tfjs.ts";
import type { GoldenTensor } from "./manifest.ts";
import { type Example, Model } from "./model.ts";
import { writeVersionFolder } from "./write.ts";

/** Two runtimes add in another order: of logits this is less than a thousandth of a probability. */
const TOLERANCE = 0.002;
const LOAD_TIMEOUT_MS = 60_000;

/**
 * Writes an ONNX version as a graph model of TensorFlow.js, in float32. Of an int8 version the weights are the same,
 * but nothing between them is rounded. The golden examples become what ONNX Runtime makes of the float32 graph, so a
 * TensorFlow engine proves at each start that it gives the same answers.
 *
 * @param from folder of the ONNX version
 * @param to folder of the new one, `<name>/<version>`
 * @returns the float32 ONNX graph that it was made of
 * @throws ManifestError, or Error if there is an operator that TensorFlow.js has no word for
 */
export async function writeTfjs(from: string, to: string): Promise<Uint8Array> {
  const model = new Model(from);
  await model.verify();
  const { manifest } = model;
  if (manifest.format !== "onnx")
    throw new Error(`Expected an ONNX model in ${from} but it is ${manifest.format}`);
  const float = dequantize(readModel(await readFile(resolve(from, manifest.files[0]?.path ?? ""))));
  const whole = await simplified(writeModel(float));
  const { json, weights } = toTfjs(whole);
  const onnx = writeModel(whole);
  const examples = await answersOf(model, onnx);
  const { accuracy: _, golden: __, ...same } = manifest;
  await writeVersionFolder(
    to,
    {
      ...same,
      format: "tfjs",
      golden: examples.map(([inputs, outputs], i) => ({
        inputs: goldenOf(inputs, `golden/${i}-`),
        outputs: goldenOf(outputs),
        tolerance: TOLERANCE,
      })),
      source: `${manifest.source}; float32, from version ${manifest.version} of ${manifest.name}`,
    },
    [
      ["model.json", Buffer.from(JSON.stringify(json))],
      [SHARD, weights],
      ...examples.flatMap(([inputs], i) =>
        Object.entries(inputs).flatMap(([name, tensor]) =>
          isLarge(tensor) ? [[`golden/${i}-${name}.bin`, bytesOf(tensor)] as const] : [],
        ),
      ),
    ],
  );
  return onnx;
}

/** Each example's item, as its kind prepares it, and what ONNX Runtime makes of it. */
async function answersOf(model: Model, onnx: Uint8Array): Promise<[Example["item"], Example["outputs"]][]> {
  const dir = await mkdtemp(join(tmpdir(), "dl-lambda-"));
  const file = "model.onnx";
  await writeFile(join(dir, file), onnx);
  const engine = createEngine(
    { ...model.engineSpec(1), dir, files: [file], threads: wholeCores() },
    { name: model.id.name },
  );
  try {
    await engine.load(AbortSignal.timeout(LOAD_TIMEOUT_MS));
    const answers: [Example["item"], Example["outputs"]][] = [];
    for (const { item } of model.examples()) {
      const outputs = await engine.run(model.collate([item]), 1, { deadline: Number.POSITIVE_INFINITY });
      answers.push([item, outputs]);
    }
    return answers;
  } finally {
    await engine.close();
    await rm(dir, { recursive: true });
  }
}

/** Longer than this a tensor lies in a file of its own. */
const INLINE = 64;
const isLarge = ({ data }: Tensor) => data.length > INLINE;

function goldenOf(tensors: Example["item"], prefix = ""): Record<string, GoldenTensor> {
  return Object.fromEntries(
    Object.entries(tensors).map(([name, tensor]) => {
      const { dtype, shape, data } = tensor;
      const values =
        prefix && isLarge(tensor) ? { file: `${prefix}${name}.bin` } : Array.from(data as ArrayLike<number>);
      return [name, { dtype, shape: shape.slice(1), data: values as GoldenTensor["data"] }];
    }),
  );
}

function bytesOf({ data }: Tensor): Uint8Array {
  const { buffer, byteOffset, byteLength } = data as Uint8Array;
  return new Uint8Array(buffer, byteOffset, byteLength);
}
