import { ServingError } from "../errors.ts";
import type { ModelAnswer, PredictResult } from "../types.ts";

/**
 * The answer in a `predict` of one item.
 *
 * @throws the item's error, as a `ServingError`
 */
export function oneAnswer({ model, node, items }: PredictResult): ModelAnswer {
  const [item] = items;
  if (!item) throw new ServingError("INTERNAL", "The model answered without an item");
  if (!item.ok) throw new ServingError(item.error.code, item.error.message);
  const { ok: _, ...answer } = item;
  return { ...answer, model, node };
}
