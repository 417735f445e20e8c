import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { parse } from "yaml";
import { CPU_RULE, WANTED_REPLICAS } from "../../../k8s/generate/autoscaler.ts";
import { METRICS, wireName } from "../../../lib/telemetry/metrics.ts";
import { promtool } from "../../../testkit/prometheus.ts";

const FOLDER = resolve(import.meta.dirname, "../../../k8s/scaling");

interface Rule {
  readonly record: string;
  readonly expr: string;
  readonly labels?: { readonly policy: string };
}

const rules = (
  parse(readFileSync(resolve(FOLDER, "rules.yaml"), "utf8")) as { groups: { rules: Rule[] }[] }
).groups.flatMap(({ rules }) => rules);

test("the recording rules decide as promised at every edge", async () => {
  const { stdout, stderr, status } = spawnSync(await promtool(), ["test", "rules", "rules.test.yaml"], {
    cwd: FOLDER,
    encoding: "utf8",
  });
  expect({ status, output: `${stdout}${stderr}` }).toEqual({
    status: 0,
    output: expect.stringContaining("SUCCESS"),
  });
});

test("the marks and windows are those of the autoscaler by CPU", () => {
  const exprOf = (name: string) => rules.find(({ record }) => record === name)?.expr;
  const { highPercent, lowPercent, upSeconds, downSeconds } = CPU_RULE;
  expect(exprOf("dl_lambda:scale_up")).toContain(`avg${upSeconds / 60}m > ${highPercent / 100}`);
  expect(exprOf("dl_lambda:scale_down")).toContain(`avg${downSeconds / 60}m < ${lowPercent / 100}`);
});

test("the autoscalers read what the rules record, by both policies", () => {
  const wanted = rules.filter(({ record }) => record === WANTED_REPLICAS);
  expect(wanted.map(({ labels }) => labels?.policy)).toEqual(["rule", "queue"]);
});

test("the rules read metrics that there are", () => {
  const known = Object.entries(METRICS).flatMap(([name, metric]) =>
    "buckets" in metric ? [`${wireName(name)}_sum`, `${wireName(name)}_count`] : [wireName(name)],
  );
  const read = rules.flatMap(({ expr }) => expr.match(/\b(node|inference)_\w+/g) ?? []);
  expect(read.length).toBeGreaterThan(5);
  expect(read.filter((name) => !known.includes(name))).toEqual([]);
});
