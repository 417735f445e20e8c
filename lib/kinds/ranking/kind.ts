import { z } from "zod";
import { mismatch } from "../../check.ts";
import { stack, type TensorSpec, type Tensors } from "../../engines/tensors.ts";
import type { Kind } from "../kind.ts";
import { INPUTS, MAX_IDS, type RankingInfo, type RankingInput, rankingBody } from "./input.ts";

const name = z.string().regex(/\S/, "the name of an input");

export const rankingPart = z.strictObject({
  name: z.literal("ranking"),
  user: name.optional().describe("input that takes the id of who is asked about; absent: it knows nobody"),
  history: name.optional().describe("input that takes ids of what they liked, the newest last"),
  candidates: name.optional().describe("input that takes ids to choose among; none: all"),
});

/**
 * The ranking part of a manifest: which of its inputs is which, each string `[length]`. Ids are texts, and what they
 * mean is the graph's business (`LabelEncoder` of ONNX), so that it need not be told to anyone else; "" is no id.
 */
export type RankingPart = Readonly<z.infer<typeof rankingPart>>;

const length = z.int().min(0).max(MAX_IDS);

export const ranking: Kind<RankingPart, RankingInput, RankingInfo> = {
  name: "ranking",
  accepts: ["application/json"],
  schema: z.toJSONSchema(rankingBody),
  noun: "taste",
  limit: "maxInputBytes",
  part: rankingPart,
  wanted: z.looseObject({ user: z.boolean(), history: length, candidates: length }),

  contradictions(part, inputs) {
    const problems = [];
    const named = INPUTS.flatMap((key) => (part[key] === undefined ? [] : [[key, part[key]] as const]));
    if (part.user === undefined && part.history === undefined) {
      problems.push(mismatch("user or history, or both,", "kind", part));
    }
    for (const [key, input] of named) {
      const spec = inputs.find((each) => each.name === input);
      const most = key === "user" ? 1 : MAX_IDS;
      const [ids = 0] = spec?.shape ?? [];
      if (spec?.dtype === "string" && spec.shape.length === 1 && ids !== null && ids >= 1 && ids <= most)
        continue;
      const expected = `the name of an input string [${key === "user" ? 1 : `1 to ${MAX_IDS}`}]`;
      problems.push(mismatch(expected, `kind.${key}`, spec ?? input));
    }
    const different = new Set(named.map(([, input]) => input)).size;
    if (different < named.length || different !== inputs.length) {
      const all = inputs.map((each) => each.name);
      problems.push(mismatch("inputs that kind names, each of them once,", "inputs", all));
    }
    return problems;
  },

  wants: (part, inputs) => ({
    type: "ranking",
    user: part.user !== undefined,
    history: lengthOf(part.history, inputs),
    candidates: lengthOf(part.candidates, inputs),
  }),

  prepared: (part, inputs) =>
    INPUTS.flatMap((key) => {
      const ids = lengthOf(part[key], inputs);
      return ids === 0 ? [] : [{ name: key, dtype: "string", shape: [ids] } satisfies TensorSpec];
    }),

  collate(items, part) {
    const batch = stack(items);
    return Object.fromEntries(
      INPUTS.flatMap((key) => (part[key] && batch[key] ? [[part[key], batch[key]]] : [])),
    ) as Tensors;
  },

  async open(options) {
    const { RankingPreparer } = await import("./preparer.ts");
    return new RankingPreparer(options);
  },
};

function lengthOf(input: string | undefined, inputs: readonly TensorSpec[]): number {
  return inputs.find((spec) => spec.name === input)?.shape[0] ?? 0;
}
