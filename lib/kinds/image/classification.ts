import type { Classification, LabelProbability } from "../../types.ts";

/** How raw outputs become an answer to a yes/no question. */
export interface Question {
  readonly labels: readonly string[];
  /** Indices of the labels that mean yes. */
  readonly group: readonly number[];
  /** Yes from this probability on, 0–1. */
  readonly threshold: number;
}

const SHOWN_LABELS = 5;

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

/** Indices of the `count` largest values, the largest first, the first of equals first. One pass: no sort of 1000. */
function largest(values: Float32Array, count: number): number[] {
  const best: number[] = [];
  for (let i = 0; i < values.length; i++) {
    const value = values[i] ?? 0;
    if (best.length === count && !(value > (values[best.at(-1) ?? 0] ?? 0))) continue;
    let at = best.length;
    while (at > 0 && value > (values[best[at - 1] ?? 0] ?? 0)) at--;
    best.splice(at, 0, i);
    if (best.length > count) best.pop();
  }
  return best;
}

/** The answer in `logits [classes]`: its probability is the sum over the question's group. */
export function classify(logits: Float32Array, { labels, group, threshold }: Question): Classification {
  const probabilities = softmax(logits);
  const ranked: LabelProbability[] = largest(probabilities, SHOWN_LABELS).map((i) => ({
    label: labels[i] ?? String(i),
    probability: probabilities[i] ?? 0,
  }));
  const probability = Math.min(
    1,
    group.reduce((sum, i) => sum + (probabilities[i] ?? 0), 0),
  );
  return { answer: probability >= threshold, label: ranked[0]?.label ?? "", probability, labels: ranked };
}
