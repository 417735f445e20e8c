import type { ServiceSchema } from "moleculer";
import type { z } from "zod";
import { mismatch, problemsOf } from "./check.ts";
import type { Mixin } from "./define.ts";
import type { Deploy, Role } from "./deploy.ts";
import { StartError } from "./start-error.ts";

/** Names that the others call: only the services that have this role may bear them. */
const RESERVED: ReadonlySet<string> = new Set<Role>(["gateway", "dispatcher"]);
/** What the addresses of the API have room for. */
const NAME = /^[a-z0-9][a-z0-9.-]{0,63}$/;

/**
 * The service in a module, checked before anything of it runs: it must bear the name of its file, or a copied file would
 * answer as the one it was copied from, and give the settings that it or its mixin declares.
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
  if (RESERVED.has(name) && schema.deploy?.role !== name) {
    problems.push(`"${name}" is the name of another service, which the others call`);
  }
  if (!NAME.test(name)) problems.push(mismatch("at most 64 of a–z, 0–9, - and .", "name", name));
  const declared = schema.settingsSchema ?? schema.mixins?.find(isTyped)?.settingsSchema;
  if (declared) problems.push(...problemsOf(declared, schema.settings ?? {}, "settings"));
  if (problems.length === 0) return schema;
  throw new StartError([`${file} cannot be started:`, ...problems.map((each) => `  ${each}`)].join("\n"));
}

/** What of a service's schema is ours. */
type Checked = ServiceSchema & { readonly deploy?: Deploy; readonly settingsSchema?: z.ZodObject };

function isService(value: unknown): value is Checked {
  return typeof value === "object" && value !== null && "name" in value;
}

function isTyped(mixin: unknown): mixin is Mixin {
  return typeof mixin === "object" && mixin !== null && "settingsSchema" in mixin;
}
