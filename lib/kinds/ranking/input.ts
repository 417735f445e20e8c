import { z } from "zod";
import { MAX_RANKED } from "../../tasks/ranking.ts";
import type { InputSpec, Inspection } from "../kind.ts";

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
