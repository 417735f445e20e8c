import { z } from "zod";
import { mismatch, nearest } from "../check.ts";
import { largest } from "./largest.ts";
import type { Task } from "./task.ts";

const text = z.string().regex(/\S/, "a text");
const index = z.int("an index of labels").min(0, "an index of labels");

export const classificationPart = z.strictObject({
  name: z.literal("classification"),
  output: text.describe("name of the output that has one number for each label"),
  activation: z.enum(["softmax", "none"]).describe("what makes probabilities of them; none: they are"),
  labels: z
    .array(text)
    .min(1)
    .refine((labels) => new Set(labels).size === labels.length, "a list of different texts")
    .describe("in the order of the output"),
  groups: z
    .record(z.string(), z.array(index).min(1, "indices of labels"))
    .refine((groups) => Object.keys(groups).length > 0, "one group of labels or more")
    .describe("indices of labels that together answer a question, e.g. every breed for dog"),
});

const share = z.number("a number from 0 to 1").min(0, "a number from 0 to 1").max(1, "a number from 0 to 1");

/** The classification part of a manifest. */
export type ClassificationPart = Readonly<z.infer<typeof classificationPart>>;

/** What a service asks of a classifier: yes or no. */
export interface ClassificationAsk {
  /** Key of the manifest's `groups`. */
  readonly group: string;
  /** Yes from this probability on, 0–1. */
  readonly threshold: number;
}

/** The same, as the dispatcher needs it. */
export interface ClassificationQuestion {
  /** Indices of the labels that mean yes. */
  readonly group: readonly number[];
  readonly threshold: number;
}

export interface LabelProbability {
  readonly label: string;
  readonly probability: number;
}

/** One item's answer to a yes/no question. */
export interface Classification {
  readonly answer: boolean;
  /** Probability that the answer to the question is yes. */
  readonly probability: number;
  /** What the network sees, whatever the question: the most probable labels first, at most five. */
  readonly labels: readonly LabelProbability[];
}

const SHOWN_LABELS = 5;
/** Digits of a probability that mean something: a float32 has hardly more. */
const DIGITS = 6;

/** Image or text in, one probability for each label out; answers yes/no questions about groups of labels. */
export const classification: Task<
  ClassificationPart,
  { readonly labels: readonly string[] },
  ClassificationAsk,
  ClassificationQuestion,
  Float32Array,
  Classification
> = {
  name: "classification",
  part: classificationPart,

  contradictions({ output, labels, groups }, outputs) {
    const problems = [];
    const spec = outputs.find(({ name }) => name === output);
    if (!spec) {
      const names = outputs.map(({ name }) => JSON.stringify(name)).join(" or ");
      problems.push(mismatch(names, "task.output", output));
    } else if (spec.dtype !== "float32" || spec.shape.length !== 1 || spec.shape[0] !== labels.length) {
      problems.push(mismatch(`float32 [${labels.length}], one for each label,`, `output "${output}"`, spec));
    }
    for (const [group, indices] of Object.entries(groups)) {
      if (indices.every((i) => i < labels.length) && new Set(indices).size === indices.length) continue;
      const expected = `different indices from 0 to ${labels.length - 1}`;
      problems.push(mismatch(expected, `task.groups.${group}`, indices));
    }
    return problems;
  },

  needs: ({ output }, outputs) => outputs.filter(({ name }) => name === output),

  spec: ({ labels }) => ({ labels }),

  ask: z.strictObject({ group: text, threshold: share }),

  question({ group, threshold }, { groups }) {
    const indices = Object.hasOwn(groups, group) ? groups[group] : undefined;
    if (indices) return { group: indices, threshold };
    const near = nearest(String(group), Object.keys(groups));
    const known = `Expected group to be one of ${Object.keys(groups).join(", ")} but received "${group}"`;
    throw new Error(near ? `${known}: did you mean "${near}"?` : known);
  },

  interpret(outputs, index, { output, labels, activation }) {
    const { data } = outputs[output] ?? {};
    if (!(data instanceof Float32Array)) throw new Error(`The engine gave no float32 output "${output}"`);
    const values = data.subarray(index * labels.length, (index + 1) * labels.length);
    if (values.length !== labels.length || !values.every(Number.isFinite)) {
      throw new Error(`Output "${output}" is not ${labels.length} finite numbers`);
    }
    // A copy: the batch's memory is not the item's to keep.
    return activation === "softmax" ? softmax(values) : values.slice();
  },

  answer(probabilities, { group, threshold }, { labels }) {
    // It came over the wire, or out of a store that others write to.
    const isOutput = probabilities instanceof Float32Array && probabilities.length === labels.length;
    if (!isOutput || !probabilities.every(Number.isFinite)) {
      throw new Error(`Expected an output of ${labels.length} finite numbers`);
    }
    const sum = group.reduce((total, i) => total + (probabilities[i] ?? 0), 0);
    const probability = Math.min(1, sum);
    return {
      answer: probability >= threshold,
      probability: rounded(probability),
      labels: largest(probabilities, SHOWN_LABELS).map((i) => ({
        label: labels[i] ?? String(i),
        probability: rounded(probabilities[i] ?? 0),
      })),
    };
  },
};

/** Softmax over `logits [classes]`, shifted by their maximum so that it cannot overflow. */
export function softmax(logits: Float32Array): Float32Array {
  let max = Number.NEGATIVE_INFINITY;
  for (const x of logits) if (x > max) max = x;
  const probabilities = new Float32Array(logits.length);
  let sum = 0;
  for (let i = 0; i < logits.length; i++) {
    const exp = Math.exp((logits[i] ?? 0) - max);
    probabilities[i] = exp;
    sum += exp;
  }
  for (let i = 0; i < logits.length; i++) probabilities[i] = (probabilities[i] ?? 0) / sum;
  return probabilities;
}

/** Rounded, but never to a certainty that it is not. */
function rounded(probability: number): number {
  const near = Number(probability.toPrecision(DIGITS));
  return near === 1 && probability < 1 ? 1 - 10 ** -DIGITS : near;
}
