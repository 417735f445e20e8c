import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { serviceFiles } from "../bin/app.ts";

/**
 * Writes an entry for each service into compose.yaml and into the list of what its Prometheus scrapes; with `--check`
 * only says whether they still agree with `services/`.
 */
const ROOT = resolve(import.meta.dirname, "..");
/** Written by hand: it has a port. */
const GATEWAY = "gateway";

const services = [...serviceFiles([resolve(ROOT, "services")]).keys()].sort();
const entries = services
  .filter((name) => name !== GATEWAY)
  .map((name) => `  ${name}: { <<: *service, environment: { <<: *environment, SERVICES: ${name} } }\n`);

const FILES: readonly (readonly [file: string, place: RegExp, text: string])[] = [
  ["compose.yaml", /(?<= {2}# services: .*\n)(?: {2}[^#].*\n)*(?= {2}# \/services\n)/, entries.join("")],
  [
    "monitoring/prometheus.yml",
    /(?<=# services: .*\n)\s+names: .*\n/,
    `        names: [${services.join(", ")}]\n`,
  ],
];

for (const [name, place, text] of FILES) {
  const file = resolve(ROOT, name);
  const before = readFileSync(file, "utf8");
  if (!place.test(before)) throw new Error(`${name} has no place for the services`);
  const after = before.replace(place, text);
  if (after === before) continue;
  if (process.argv.includes("--check")) {
    console.error(`${name} is not what \`npm run compose\` makes of services/`);
    process.exitCode = 1;
  } else writeFileSync(file, after);
}
