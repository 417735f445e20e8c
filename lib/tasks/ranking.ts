import { z } from "zod";
import { mismatch } from "../check.ts";
import type { TensorSpec } from "../engines/tensors.ts";
import type { Inspection } from "../kinds/kind.ts";
import { largest } from "./largest.ts";
import type { Task } from "./task.ts";

/** Items in an answer, at most: so many of an output are kept. */
export const MAX_RANKED = 100;

const text = z.string().regex(/\S/, "a text");
const limitText = `a whole number from 1 to ${MAX_RANKED}`;
const limit = z.int(limitText).min(1, limitText).max(MAX_RANKED, limitText);
const item = z.strictObject({
  id: text.describe("what clients call it"),
  title: text.describe("for people"),
});

export const rankingTaskPart = z.strictObject({
  name: z.literal("ranking"),
  output: text.describe("name of the output that has one number for each item, the larger the better"),
  eligible: text
    .optional()
    .describe(
      "name of an output float32 that is 0 for each item that may not be ranked: liked already, no candidate",
    ),
  known: text
    .optional()
    .describe(
      "name of an output int32 [2]: whether the user is known (0, 1), and how many ids of the history are",
    ),
  items: z
    .array(item)
    .min(1)
    .refine((items) => new Set(items.map(({ id }) => id)).size === items.length, "a list of different ids")
    .describe("in the order of the output"),
});

/** The ranking part of a manifest. */
export type RankingTaskPart = Readonly<z.infer<typeof rankingTaskPart>>;

/** What a service asks of a recommender, and as it is published. */
export interface RankingAsk {
  /** Items in an answer whose client does not say how many. */
  readonly limit: number;
}

/** The best of all, the best first; at most {@link MAX_RANKED}. */
export interface RankingOutput {
  /** Indices of items. */
  readonly items: Int32Array;
  readonly scores: Float32Array;
  readonly known?: { readonly user: boolean; readonly history: number };
}

export interface RankedItem {
  readonly item: string;
  readonly title: string;
  /** The larger the better, among the items of one answer; no probability. */
  readonly score: number;
}

/** One request's ranking. */
export interface Ranking {
  /** The best first. */
  readonly items: readonly RankedItem[];
  /** What it rests on. Nothing: the items that most people like. */
  readonly basedOn?: { readonly user: boolean; readonly history: number };
}

/** Digits of a score that mean something. */
const DIGITS = 6;

/** One number for each item out; the answer names the best of them. */
export const rankingTask: Task<
  RankingTaskPart,
  Pick<RankingTaskPart, "items">,
  RankingAsk,
  RankingAsk,
  RankingOutput,
  Ranking
> = {
  name: "ranking",
  part: rankingTaskPart,

  contradictions({ output, eligible, known, items }, outputs) {
    const wanted: (TensorSpec & { readonly key: string })[] = [
      { key: "output", name: output, dtype: "float32", shape: [items.length] },
      ...(eligible
        ? [{ key: "eligible", name: eligible, dtype: "float32", shape: [items.length] } as const]
        : []),
      ...(known ? [{ key: "known", name: known, dtype: "int32", shape: [2] } as const] : []),
    ];
    return wanted.flatMap(({ key, name, dtype, shape }) => {
      const spec = outputs.find((each) => each.name === name);
      if (spec?.dtype === dtype && spec.shape.length === 1 && spec.shape[0] === shape[0]) return [];
      return [mismatch(`the name of an output ${dtype} [${shape}]`, `task.${key}`, spec ?? name)];
    });
  },

  needs: ({ output, eligible, known }, outputs) =>
    outputs.filter(({ name }) => [output, eligible, known].includes(name)),

  spec: ({ items }) => ({ items }),

  ask: z.strictObject({ limit }),

  // Not the settings' own object: what stands twice in a packet arrives once.
  question: ({ limit }) => ({ limit }),

  interpret(outputs, index, { output, eligible, known, items }) {
    const scores = numbers(output);
    const open = eligible === undefined ? undefined : numbers(eligible);
    const ranked = scores.map((score, i) => (open?.[i] === 0 ? Number.NEGATIVE_INFINITY : score));
    const best = largest(ranked, MAX_RANKED).filter((i) => ranked[i] !== Number.NEGATIVE_INFINITY);
    const found = known === undefined ? undefined : outputs[known]?.data;
    return {
      items: Int32Array.from(best),
      scores: Float32Array.from(best, (i) => scores[i] ?? 0),
      ...(found instanceof Int32Array
        ? { known: { user: found[2 * index] === 1, history: found[2 * index + 1] ?? 0 } }
        : {}),
    };

    function numbers(name: string): Float32Array {
      const data = outputs[name]?.data;
      if (!(data instanceof Float32Array)) throw new Error(`The engine gave no float32 output "${name}"`);
      const values = data.subarray(index * items.length, (index + 1) * items.length);
      if (values.length === items.length && values.every(Number.isFinite)) return values;
      throw new Error(`Output "${name}" is not ${items.length} finite numbers`);
    }
  },

  answer(output, { limit }, { items }, info) {
    assertOutput(output, items.length);
    const { known } = output;
    const wanted = (info as (Inspection & { readonly limit?: number }) | undefined)?.limit ?? limit;
    return {
      items: Array.from(output.items.subarray(0, wanted), (item, i) => ({
        item: items[item]?.id ?? "",
        title: items[item]?.title ?? "",
        score: Number((output.scores[i] ?? 0).toPrecision(DIGITS)),
      })),
      ...(known ? { basedOn: { user: known.user === true, history: Number(known.history) } } : {}),
    };
  },
};

/** It came over the wire, or out of a store that others write to. */
function assertOutput(output: RankingOutput, count: number): void {
  const { items, scores } = output ?? {};
  const fits =
    items instanceof Int32Array &&
    scores instanceof Float32Array &&
    items.length === scores.length &&
    items.every((item) => item >= 0 && item < count) &&
    scores.every(Number.isFinite);
  if (!fits) throw new Error(`Expected an output of items from 0 to ${count - 1} with finite scores`);
}
