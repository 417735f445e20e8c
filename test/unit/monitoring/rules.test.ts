import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { promtool, runPromtool } from "../../../testkit/prometheus.ts";

const FOLDER = resolve(import.meta.dirname, "../../../monitoring");
const read = (file: string) => readFileSync(resolve(FOLDER, file), "utf8");
const found = (text: string, pattern: RegExp) => [...text.matchAll(pattern)].map(([, name = ""]) => name);

const alerts = found(read("rules/alerts.yaml"), /^ +- alert: (\w+)$/gm);

test.each([
  ["rules are valid", ["check", "rules", "--lint-fatal", "rules/recording.yaml", "rules/alerts.yaml"]],
  ["alerts come and stay away as their tests say", ["test", "rules", "rules/alerts.test.yaml"]],
  ["recorded values are what their tests say", ["test", "rules", "rules/recording.test.yaml"]],
  ["compose's Prometheus can read its configuration", ["check", "config", "prometheus.yml"]],
])("%s", async (_, args) => {
  const paths = args.map((arg) => (/\.ya?ml$/.test(arg) ? resolve(FOLDER, arg) : arg));
  const { status, text } = runPromtool(await promtool(), paths);
  expect({ status, text }).toEqual({ status: 0, text: expect.any(String) });
});

test("every alert has a test in which it fires, and a paragraph in the runbook that it points to", () => {
  const fired = found(read("rules/alerts.test.yaml"), /alertname: (\w+)\n +exp_alerts:\n +- exp_labels/g);
  expect(alerts.length).toBeGreaterThan(0);
  expect(fired.toSorted()).toEqual(alerts.toSorted());
  expect(found(read("RUNBOOK.md"), /^## (\w+)$/gm)).toEqual(alerts);
  expect(found(read("rules/alerts.yaml"), /runbook: RUNBOOK\.md#(\w+)/g)).toEqual(
    alerts.map((name) => name.toLowerCase()),
  );
});
