/**
 * Measures the exported model on the held-out photos through the code that serves: its image pipeline, its runtime,
 * its rule for an answer. Writes `evaluation.json` into the work folder.
 *
 *     node training/evaluate.ts --work DIR --model models/pets-resnet/1/model.onnx
 */
import { readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { basename, dirname, resolve } from "node:path";
import { parseArgs } from "node:util";
import load from "../lib/engines/onnx.ts";
import { ImagePipeline } from "../lib/kinds/image/pipeline.ts";
import { classification, softmax } from "../lib/tasks/classification.ts";
import type { Evaluation, Export, Scores } from "./reports.ts";

/** The threshold of the services. */
const THRESHOLD = 0.5;

const { work, model } = parseArgs({
  options: { work: { type: "string", default: "" }, model: { type: "string", default: "" } },
}).values;
const { side, labels, heldOut } = JSON.parse(readFileSync(resolve(work, "export.json"), "utf8")) as Export;

/** One row of logits a photo. */
async function logitsOf(file: string): Promise<Float32Array[]> {
  const pipeline = new ImagePipeline();
  const runtime = await load({
    runtime: "onnx",
    dir: dirname(resolve(file)),
    files: [basename(file)],
    inputs: [{ name: "pixels", dtype: "uint8", shape: [side, side, 3] }],
    outputs: [{ name: "logits", dtype: "float32", shape: [labels.length] }],
    maxBatch: 1,
    threads: availableParallelism(),
  });
  const rows: Float32Array[] = [];
  for (const photo of heldOut) {
    const bytes = readFileSync(resolve(work, "held-out", photo.file));
    const pixels = await pipeline.prepare(bytes, { type: "image", width: side, height: side });
    const { logits } = await runtime.run(
      { pixels: { dtype: "uint8", shape: [1, side, side, 3], data: pixels } },
      1,
    );
    rows.push(logits?.data as Float32Array);
    if (rows.length % 500 === 0) console.log(`${file}: ${rows.length} of ${heldOut.length} photos`);
  }
  await runtime.close();
  return rows;
}

const mostProbable = (logits: Float32Array) => logits.indexOf(Math.max(...logits));

function score(rows: readonly Float32Array[]): Scores {
  const share = (right: (logits: Float32Array, label: number) => boolean) =>
    rows.filter((logits, i) => right(logits, heldOut[i]?.label ?? -1)).length / rows.length;
  const question = (group: number) =>
    share((logits, label) => {
      const asked = { group: [group], threshold: THRESHOLD };
      const { answer } = classification.answer(softmax(logits), asked, { labels });
      return answer === (label === group);
    });
  const byLabel = (group: number) =>
    share((logits, label) => (mostProbable(logits) === group) === (label === group));
  return {
    threeWay: share((logits, label) => mostProbable(logits) === label),
    cat: question(0),
    dog: question(1),
    catByLabel: byLabel(0),
    dogByLabel: byLabel(1),
  };
}

/** Ten bins of the largest probability; formula (3) of Guo et al. 2017, https://arxiv.org/abs/1706.04599. */
function calibrationError(rows: readonly Float32Array[]): number {
  const gaps = new Array<number>(10).fill(0);
  rows.forEach((logits, i) => {
    const confidence = Math.max(...softmax(logits));
    const bin = Math.min(9, Math.floor(confidence * 10));
    gaps[bin] = (gaps[bin] ?? 0) + confidence - Number(mostProbable(logits) === heldOut[i]?.label);
  });
  return gaps.reduce((sum, gap) => sum + Math.abs(gap), 0) / rows.length;
}

const float32 = await logitsOf(resolve(work, "float32.onnx"));
const int8 = await logitsOf(model);
const guesses = int8.map(mostProbable);
const evaluation: Evaluation = {
  float32: score(float32),
  int8: score(int8),
  agreement: float32.filter((logits, i) => mostProbable(logits) === guesses[i]).length / heldOut.length,
  calibrationError: calibrationError(int8),
  confusion: labels.map((_, label) =>
    labels.map(
      (_, guess) => heldOut.filter((photo, i) => photo.label === label && guesses[i] === guess).length,
    ),
  ),
};
writeFileSync(resolve(work, "evaluation.json"), `${JSON.stringify(evaluation, null, 2)}\n`);
console.table({ float32: evaluation.float32, int8: evaluation.int8 });
console.table(
  Object.fromEntries(
    labels.map((label, i) => [
      label,
      Object.fromEntries(labels.map((guess, k) => [guess, evaluation.confusion[i]?.[k]])),
    ]),
  ),
);
