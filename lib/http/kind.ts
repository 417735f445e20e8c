import type { IncomingHttpHeaders } from "node:http";
import { ServingError } from "../errors.ts";
import type { Kind } from "../kinds/kind.ts";
import { KINDS, kindOf } from "../kinds/registry.ts";
import type { KnownModel } from "../models/catalog.ts";

export const FORM = "multipart/form-data";
export const JSON_TYPE = "application/json";

/** The content type in these headers, lower case, without its parameters; "" if there is none. */
export function mediaTypeOf(headers: IncomingHttpHeaders): string {
  const [type = ""] = (headers["content-type"] ?? "").split(";", 1);
  return type.trim().toLowerCase();
}

/** Whether a body of this content type may hold inputs of that kind. */
export function takes(kind: Kind, type: string): boolean {
  if (type === FORM) return kind.field !== undefined;
  return kind.accepts.includes(type) || (type === JSON_TYPE && kind.schema !== undefined);
}

/**
 * What the body of a request is about: what the models that are named take; with none named, the first kind that takes
 * such a body and that there are models of. Where no model is known any kind will do.
 *
 * @param named what is known of the models that are asked for by name
 * @param known all models
 * @throws ServingError BAD_REQUEST if the models that are named take different kinds
 */
export function kindOfBody(
  headers: IncomingHttpHeaders,
  named: readonly KnownModel[],
  known: readonly KnownModel[],
): Kind {
  const asked = new Set(named.map(typeOf));
  if (asked.size > 1) {
    const list = named.map((model) => `${model.name} (${typeOf(model)})`).join(", ");
    throw new ServingError("BAD_REQUEST", `These models take different inputs: ${list}`);
  }
  const [only] = asked;
  if (only !== undefined) return kindOf(only);
  const type = mediaTypeOf(headers);
  const fitting = KINDS.filter((kind) => takes(kind, type));
  const used = new Set(known.map(typeOf));
  // A body that no model here could take is of the wrong type, not of a model that is missing.
  const open = used.size > 0 ? KINDS.filter((kind) => used.has(kind.name)) : KINDS;
  return fitting.find((kind) => open.includes(kind)) ?? open[0] ?? (KINDS[0] as Kind);
}

function typeOf({ versions: [{ input }] }: KnownModel): string {
  return input.type;
}
