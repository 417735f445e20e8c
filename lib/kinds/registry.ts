import { image, imagePart } from "./image/kind.ts";
import type { Kind } from "./kind.ts";
import { ranking, rankingPart } from "./ranking/kind.ts";
import { tensor, tensorPart } from "./tensor/kind.ts";
import { text, textPart } from "./text/kind.ts";
import { video } from "./video/kind.ts";

/** The parts of a manifest that say what its model takes. */
export const KIND_PARTS = [imagePart, textPart, rankingPart, tensorPart] as const;

/** Every kind of input, in the order in which a body's content type is offered to them. */
export const KINDS: readonly Kind[] = [image, video, text, ranking, tensor];

/** @throws Error if there is no such kind */
export function kindOf(name: string): Kind {
  const kind = KINDS.find((each) => each.name === name);
  if (kind) return kind;
  throw new Error(`Expected a kind of ${KINDS.map((each) => each.name).join(", ")} but received "${name}"`);
}
