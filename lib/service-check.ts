import type { ServiceSchema } from "moleculer";
import { mismatch, problemsOf } from "./check.ts";
import type { Mixin } from "./define.ts";
import { StartError } from "./start-error.ts";

/** Names that mean something else to the others: no model may bear them. */
const RESERVED: ReadonlySet<string> = new Set(["gateway", "dispatcher"]);
/** What the addresses of the API have room for. */
const MODEL_NAME = /^[a-z0-9][a-z0-9.-]{0,63}$/;

/**
 * The service in a module, checked before anything of it runs: it must bear the name of its file, or a copied file would
 * answer as the one it was copied from, and give its mixin the settings that this declares.
 *
 * @param file for the message
 * @param name what the file is called, without its suffix
 * @throws StartError naming the file and every mistake
 */
export function checkedService(
  file: string,
  name: string,
  module: { readonly default?: unknown },
): ServiceSchema {
  const schema = module.default;
  if (!isService(schema)) throw new StartError(`${file}: expected a default export made by defineService`);
  const problems = schema.name === name ? [] : [mismatch(`"${name}", as the file,`, "name", schema.name)];
  const typed = schema.mixins?.find(isTyped);
  if (typed) {
    if (RESERVED.has(name)) problems.push(`"${name}" is the name of a service that is no model`);
    if (!MODEL_NAME.test(name)) problems.push(mismatch("at most 64 of a–z, 0–9, - and .", "name", name));
    problems.push(...problemsOf(typed.settingsSchema, schema.settings ?? {}, "settings"));
  }
  if (problems.length === 0) return schema;
  throw new StartError([`${file} cannot be started:`, ...problems.map((each) => `  ${each}`)].join("\n"));
}

function isService(value: unknown): value is ServiceSchema & { readonly mixins?: readonly unknown[] } {
  return typeof value === "object" && value !== null && "name" in value;
}

function isTyped(mixin: unknown): mixin is Mixin {
  return typeof mixin === "object" && mixin !== null && "settingsSchema" in mixin;
}
