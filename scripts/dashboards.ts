import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { BOARDS } from "../monitoring/boards.ts";

/**
 * Writes Grafana's dashboards to `monitoring/dashboards/` from the table of metrics and `monitoring/boards.ts`, and the
 * rules of `monitoring/rules/` as a resource of the Prometheus Operator; with `--check` only says whether they still
 * agree.
 */
const ROOT = resolve(import.meta.dirname, "..");

const boards = BOARDS.map(
  (board) => [`monitoring/dashboards/${board.uid}.json`, `${JSON.stringify(board, null, 2)}\n`] as const,
);
const files = [...boards, ["k8s/components/monitoring/prometheus-rule.yaml", prometheusRule()] as const];

/** The groups of both files in one, indented: no comment is lost. */
function prometheusRule(): string {
  const groups = ["recording", "alerts"].map((name) => {
    const [, text = ""] = readFileSync(resolve(ROOT, `monitoring/rules/${name}.yaml`), "utf8").split(
      "groups:\n",
    );
    return text.replaceAll(/^(?=.)/gm, "  ");
  });
  return `# Made by \`npm run dashboards\` from monitoring/rules.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: dl-lambda
  labels:
    app.kubernetes.io/part-of: dl-lambda
spec:
  groups:
${groups.join("")}`;
}

for (const [name, text] of files) {
  const file = resolve(ROOT, name);
  if (existsSync(file) && readFileSync(file, "utf8") === text) continue;
  if (process.argv.includes("--check")) {
    console.error(`${name} is not what \`npm run dashboards\` makes of the code`);
    process.exitCode = 1;
  } else writeFileSync(file, text);
}
