import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { z } from "zod";
import { VARIABLES } from "../lib/env.ts";
import { ERRORS } from "../lib/errors.ts";
import { MANIFEST } from "../lib/models/manifest.ts";
import { METRICS } from "../lib/telemetry/metrics.ts";

/**
 * Writes the README's tables from the code they describe, between `<!-- name -->` and `<!-- /name -->`, and the JSON
 * Schema of manifests; with `--check` only says whether they still agree.
 */
const README = resolve(import.meta.dirname, "../README.md");

const table = (head: readonly string[], rows: readonly (readonly string[])[]) =>
  [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");

const TABLES: Readonly<Record<string, string>> = {
  settings: table(
    ["Variable", "Default", "What it is"],
    Object.entries(VARIABLES).map(([name, { default: value, desc }]) => [
      `\`${name}\``,
      value === "" || (Array.isArray(value) && value.length === 0) ? "" : `\`${value}\``,
      desc ?? "",
    ]),
  ),
  errors: table(
    ["Status", "`code`", "Meaning", "Retry"],
    Object.entries(ERRORS).map(([code, { status, about, retryable }]) => [
      String(status),
      `\`${code}\``,
      about,
      retryable ? "yes" : "",
    ]),
  ),
  metrics: table(
    ["Metric", "Labels", "What it is"],
    Object.entries(METRICS).map(([name, { labels, about }]) => [
      `\`${name.replaceAll(".", "_")}\``,
      labels.join(", "),
      about,
    ]),
  ),
};

const before = readFileSync(README, "utf8");
let after = before;
for (const [name, text] of Object.entries(TABLES)) {
  const block = new RegExp(`(<!-- ${name} -->\n)[^]*?(\n<!-- /${name} -->)`);
  if (!block.test(after)) throw new Error(`README.md has no place for the table "${name}"`);
  after = after.replace(block, (_, open: string, close: string) => `${open}${text}${close}`);
}
replace("README.md", before, after);

const SCHEMA = resolve(import.meta.dirname, "../models/manifest.schema.json");
const schema = `${JSON.stringify(z.toJSONSchema(MANIFEST), null, 2)}\n`;
replace("models/manifest.schema.json", existsSync(SCHEMA) ? readFileSync(SCHEMA, "utf8") : "", schema);

function replace(file: string, before: string, after: string): void {
  if (after === before) return;
  if (process.argv.includes("--check")) {
    console.error(`${file} is not what \`npm run docs\` makes of the code`);
    process.exit(1);
  }
  writeFileSync(resolve(import.meta.dirname, "..", file), after);
}
