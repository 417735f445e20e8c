import type { Classification, LabelProbability } from "./types.ts";

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
  const max = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const exp = logits.map((x) => Math.exp(x - max));
  const sum = exp.reduce((a, b) => a + b, 0);
  return exp.map((x) => x / sum);
}

/** The answer in `logits [classes]`: its probability is the sum over the question's group. */
export function classify(logits: Float32Array, { labels, group, threshold }: Question): Classification {
  const probabilities = softmax(logits);
  const ranked: LabelProbability[] = [...probabilities]
    .map((probability, i) => ({ label: labels[i] ?? String(i), probability }))
    .sort((a, b) => b.probability - a.probability)
    .slice(0, SHOWN_LABELS);
  const probability = Math.min(
    1,
    group.reduce((sum, i) => sum + (probabilities[i] ?? 0), 0),
  );
  return { answer: probability >= threshold, label: ranked[0]?.label ?? "", probability, labels: ranked };
}
