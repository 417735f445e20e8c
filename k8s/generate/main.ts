import { existsSync, globSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

// What services declare must not depend on the machine that reads it: their settings come from variables.
for (const name of Object.keys(process.env)) delete process.env[name];

const { readServices } = await import("./declared.ts");
const { DeployError, resolveNeeds } = await import("./needs.ts");
const { prometheusRule, scaledObjects, serviceManifests } = await import("./files.ts");

/** Writes what is made of the service files and of the rules; with `--check` only says whether it still agrees. */
const ROOT = resolve(import.meta.dirname, "../..");
const SERVICES = "k8s/base/services";
const RULES = "k8s/scaling/rules.yaml";

const read = (path: string) => readFileSync(join(ROOT, path), "utf8");

/** Text by path. */
async function made(): Promise<ReadonlyMap<string, string>> {
  const { version } = JSON.parse(read("package.json")) as { version: string };
  const needs = resolveNeeds(await readServices(join(ROOT, "services")));
  const services = [...serviceManifests(needs, `dl-lambda:${version}`)];
  return new Map([
    ...services.map(([name, text]): [string, string] => [`${SERVICES}/${name}`, text]),
    ["k8s/components/keda/scaled-objects.yaml", scaledObjects(needs)],
    ["k8s/components/scaling/prometheus-rule.yaml", prometheusRule("dl-lambda-scaling", RULES, read(RULES))],
  ]);
}

const wanted = await made().catch((error: unknown) => {
  if (!(error instanceof DeployError)) throw error;
  console.error(error.message);
  process.exit(1);
});
const stale = globSync(`${SERVICES}/*`, { cwd: ROOT }).filter((path) => !wanted.has(path));
const changed = [...wanted]
  .filter(([path, text]) => !existsSync(join(ROOT, path)) || read(path) !== text)
  .map(([path]) => path);

if (process.argv.includes("--check")) {
  for (const path of [...stale, ...changed]) console.error(`${path} is not what \`npm run k8s\` makes`);
  process.exit(stale.length + changed.length > 0 ? 1 : 0);
}
for (const path of stale) {
  rmSync(join(ROOT, path));
  console.log(`removed ${path}`);
}
for (const path of changed) {
  writeFileSync(join(ROOT, path), wanted.get(path) ?? "");
  console.log(`wrote ${path}`);
}
