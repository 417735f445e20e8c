import { z } from "zod";

/**
 * What is wrong with `value`, one sentence for each problem, all at once: "Expected a text for name but received 5 of
 * type number". A schema's own messages are what it expects ("a whole number of at least 1"), for these sentences.
 *
 * @param under where `value` itself is, for the sentences: `settings`
 */
export function problemsOf(schema: z.ZodType, value: unknown, under = ""): string[] {
  const { error } = schema.safeParse(value, { error: expectation });
  return (error?.issues ?? []).flatMap((issue) => {
    const path = issue.path.map(String);
    const where = [under, ...path].filter((part) => part !== "").join(".");
    if (issue.code !== "unrecognized_keys") return mismatch(issue.message, where, at(value, path));
    return issue.keys.map((key) => unknownKey(key, keysAt(schema, path, value), where));
  });
}

/** A whole number of at least `least`, and at most `most`. */
export function whole(least: number, most = Number.MAX_SAFE_INTEGER) {
  const bound = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`;
  const expected = `a whole number ${bound}`;
  return z.int(expected).min(least, expected).max(most, expected);
}

/** "Expected a text for name but received 5 of type number". */
export function mismatch(expected: unknown, path: string, value: unknown): string {
  const received = value === undefined ? "undefined" : JSON.stringify(value)?.slice(0, 200);
  return `Expected ${expected} for ${path || "it"} but received ${received} of type ${typeof value}`;
}

/** A sentence for a key that is not among `known`, with the nearest that is. */
export function unknownKey(key: string, known: readonly string[], where = ""): string {
  const place = where ? ` in ${where}` : "";
  const near = nearest(key, known);
  const hint = near ? `: did you mean "${near}"?` : known.length > 0 ? `: it has ${known.join(", ")}` : "";
  return `Unknown key "${key.slice(0, 100)}"${place}${hint}`;
}

/** The name that `given` most likely was to be; undefined if none is close. */
export function nearest(given: string, names: readonly string[]): string | undefined {
  const lower = given.toLowerCase();
  const ranked = names
    .map((name) => ({ name, distance: distance(lower, name.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance);
  const [best] = ranked;
  // A third of its letters may be wrong: more, and it is another word.
  return best && best.distance <= Math.ceil(given.length / 3) ? best.name : undefined;
}

/** Letters to insert, delete or exchange to make `b` of `a` (Levenshtein, 1965). */
function distance(a: string, b: string): number {
  let above = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let k = 1; k <= b.length; k++) {
      const exchange = (above[k - 1] ?? 0) + (a[i - 1] === b[k - 1] ? 0 : 1);
      row.push(Math.min((above[k] ?? 0) + 1, (row[k - 1] ?? 0) + 1, exchange));
    }
    above = row;
  }
  return above[b.length] ?? 0;
}

const TYPES: Readonly<Record<string, string>> = {
  string: "a text",
  number: "a number",
  boolean: "true or false",
  array: "a list",
  object: "an object",
  record: "an object",
  function: "a function",
};

/** What a schema expects where it does not say so in its own words. */
function expectation(issue: z.core.$ZodRawIssue): string {
  switch (issue.code) {
    case "invalid_type":
      return TYPES[issue.expected] ?? issue.expected;
    case "invalid_value":
      return issue.values.map((value) => JSON.stringify(value)).join(" or ");
    case "too_small":
      return issue.origin === "array" ? `at least ${issue.minimum} entries` : `at least ${issue.minimum}`;
    case "too_big":
      return issue.origin === "array" ? `at most ${issue.maximum} entries` : `at most ${issue.maximum}`;
    default:
      return issue.message ?? "something else";
  }
}

function at(value: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>(
    (inner, key) =>
      typeof inner === "object" && inner !== null && Object.hasOwn(inner, key)
        ? (inner as Record<string, unknown>)[key]
        : undefined,
    value,
  );
}

/** The keys that the object at `path` may have. */
function keysAt(schema: z.ZodType, path: readonly string[], value: unknown): readonly string[] {
  const inner = bare(schema, value);
  const [key, ...rest] = path;
  if (key === undefined) return inner instanceof z.ZodObject ? Object.keys(inner.shape) : [];
  const next =
    inner instanceof z.ZodObject
      ? (inner.shape[key] as z.ZodType | undefined)
      : inner instanceof z.ZodArray
        ? (inner.element as z.ZodType)
        : inner instanceof z.ZodRecord
          ? (inner.valueType as z.ZodType)
          : undefined;
  return next ? keysAt(next, rest, at(value, [key])) : [];
}

/** The schema that says what is inside: without "optional", and of several kinds the one that `value` names. */
function bare(schema: z.ZodType, value: unknown): z.ZodType {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault) {
    return bare(schema.unwrap() as z.ZodType, value);
  }
  if (!(schema instanceof z.ZodDiscriminatedUnion)) return schema;
  const { discriminator } = schema.def;
  const named = at(value, [discriminator]);
  const option = (schema.options as readonly z.ZodType[]).find(
    (each) => each instanceof z.ZodObject && each.shape[discriminator]?.safeParse(named).success,
  );
  return option ?? schema;
}
