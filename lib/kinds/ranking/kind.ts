import { z } from "zod";
import { mismatch } from "../../check.ts";
import { stack, type TensorSpec, type Tensors } from "../../engines/tensors.ts";
import { MAX_RANKED } from "../../tasks/ranking.ts";
import type { InputSpec, Inspection, Kind } from "../kind.ts";

/** What a model of this kind wants. */
export interface RankingInput extends InputSpec {
  readonly type: "ranking";
  /** Whether it knows people by an id. */
  readonly user: boolean;
  /** Ids of liked items it reads, the newest; 0: none. */
  readonly history: number;
  /** Ids it may be told to choose among; 0: it always ranks all it knows. */
  readonly candidates: number;
}

/** What is known of a request for a ranking. */
export interface RankingInfo extends Inspection {
  /** Of the JSON. */
  readonly bytes: number;
  /** Different ids in the history. */
  readonly history: number;
  /** Different candidates; absent: all items. */
  readonly candidates?: number;
  /** Items the client wants; absent: as many as the model's service gives. */
  readonly limit?: number;
}

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

/** Characters (UTF-16 units) of an id, and ids in one list. */
export const MAX_ID = 64;
export const MAX_IDS = 1000;

const idText = `a text of 1 to ${MAX_ID} characters`;
const id = z.string(idText).min(1, idText).max(MAX_ID, idText);
const limitText = `a whole number from 1 to ${MAX_RANKED}`;

/** A body in `application/json`. */
export const rankingBody = z.strictObject({
  user: id.optional().describe("whom to rank for; one that the model does not know is as good as none"),
  history: z
    .array(id)
    .max(MAX_IDS)
    .optional()
    .describe("ids of what they liked, the newest last; ids of no item are ignored"),
  candidates: z
    .array(id)
    .min(1)
    .max(MAX_IDS)
    .optional()
    .describe("ids to choose among; absent: all items that they have not liked yet"),
  limit: z.int(limitText).min(1, limitText).max(MAX_RANKED, limitText).optional(),
});

/** The tensors of a prepared request, each string `[1, length]`. */
export const INPUTS = ["user", "history", "candidates"] as const;

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
