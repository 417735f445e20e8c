import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { parseArgs } from "node:util";
import { autoscaler, CPU_RULE } from "../k8s/generate/autoscaler.ts";
import { chart } from "./chart.ts";
import type { ColdStart, ModelOptions } from "./cluster.ts";
import type { HpaSpec } from "./hpa.ts";
import type { PolicyName } from "./policies.ts";
import { type Result, simulate } from "./simulation.ts";
import { fromCsv, TRACES, type Trace } from "./traces.ts";

const HELP = `Plays a trace of requests against the autoscaling policies: the real batcher and choice of node on a clock of its own,
pods that start cold and drain, and the HPA controller's algorithm with the manifests' own windows.

    npm run simulate -- --trace diurnal|burst|flash|<file.csv>

  --trace NAME        diurnal (a day), burst (2 h), flash (1 h), or a file of lines "second,requests per second"
  --policy NAME       cpu, rule or queue; may be repeated                          all three
  --peak N            most requests a second of the three named traces             1000
  --min N, --max N    replicas                                                     2, 40
  --cores N           of a pod; as many batches at once                            2
  --base-ms N         a batch of n takes base + n · item on one core               2
  --item-ms N                                                                      25
  --price N           of a pod for an hour                                         0.10
  --seed N            the same seed, the same table                                1
  --out FILE          the chart                                                    build/simulation-<trace>.svg
`;

const OPTIONS = {
  trace: { type: "string", default: "diurnal" },
  policy: { type: "string", multiple: true },
  peak: { type: "string", default: "1000" },
  min: { type: "string", default: "2" },
  max: { type: "string", default: "40" },
  cores: { type: "string", default: "2" },
  "base-ms": { type: "string", default: "2" },
  "item-ms": { type: "string", default: "25" },
  price: { type: "string", default: "0.10" },
  seed: { type: "string", default: "1" },
  out: { type: "string" },
  help: { type: "boolean", default: false },
} as const;

const POLICIES: readonly PolicyName[] = ["cpu", "rule", "queue"];

/** Time on a public cloud: a virtual machine that joins, 150 MB of image, process and model with its warm-up. */
const COLD: ColdStart = { nodeSeconds: 75, pullSeconds: 8, startSeconds: 4, podsPerNode: 3 };

async function main(): Promise<void> {
  const { values } = parseArgs({ options: OPTIONS });
  if (values.help) return console.log(HELP);
  const number = (
    name: "peak" | "min" | "max" | "cores" | "base-ms" | "item-ms" | "price" | "seed",
    least: number,
  ) => {
    const value = Number(values[name]);
    if (Number.isFinite(value) && value >= least) return value;
    throw new RangeError(`Expected --${name} to be a number from ${least} but received "${values[name]}"`);
  };
  const policies = (values.policy ?? POLICIES).map((name) => {
    const policy = POLICIES.find((known) => known === name);
    if (policy) return policy;
    throw new RangeError(`Expected --policy to be one of ${POLICIES.join(", ")} but received "${name}"`);
  });
  const model: ModelOptions = {
    cores: number("cores", 1),
    baseMs: number("base-ms", 0),
    itemMs: number("item-ms", 0.01),
    spread: 0.1,
    maxBatchSize: 8,
    maxQueueSize: 128,
    deadlineMs: 10_000,
  };
  const trace = traceOf(values.trace, number("peak", 0));
  const price = number("price", 0);
  const [min, max] = [number("min", 1), number("max", number("min", 1))];

  const results: Result[] = [];
  const began = performance.now();
  for (const policy of policies) {
    const hpa = specOf(policy, min, max);
    results.push(
      await simulate({ trace, policy, hpa, rule: CPU_RULE, model, cold: COLD, seed: number("seed", 0) }),
    );
  }
  const seconds = (performance.now() - began) / 1000;
  console.log(table(results, price));
  const simulated = results.reduce((sum, result) => sum + result.simulated, 0);
  console.log(
    `\n${trace.name}, ${(trace.seconds / 3600).toFixed(1)} h: ${Math.round(simulated / 1000)} thousand requests one by one, the others by example, in ${seconds.toFixed(0)} s`,
  );
  const out = values.out ?? `build/simulation-${trace.name}.svg`;
  mkdirSync(dirname(out), { recursive: true });
  writeFileSync(out, chart(trace, results));
  console.log(`chart: ${out}`);
}

function traceOf(name: string, peak: number): Trace {
  const named = Object.hasOwn(TRACES, name) ? TRACES[name] : undefined;
  if (named) return named(peak);
  if (name.endsWith(".csv")) return fromCsv(name);
  throw new RangeError(
    `Expected --trace to be ${Object.keys(TRACES).join(", ")} or a .csv file but received "${name}"`,
  );
}

/** As it stands in the manifests. */
function specOf(policy: PolicyName, min: number, max: number): HpaSpec {
  const { spec } = autoscaler(
    {
      file: "",
      name: "model",
      role: "model",
      cpu: 2,
      memoryMiB: 1,
      min,
      max,
      scaling: policy,
      env: {},
      drainGraceMs: 0,
    },
    {},
  );
  const { scaleUp = {}, scaleDown = {} } = spec?.behavior ?? {};
  return { minReplicas: min, maxReplicas: max, behavior: { scaleUp, scaleDown } };
}

function table(results: readonly Result[], price: number): string {
  const percent = (part: number, { requests }: Result) => `${((100 * part) / requests).toFixed(2)} %`;
  const rows = results.map((result) => [
    result.policy,
    String(Math.round(result.requests)),
    result.p50Ms.toFixed(0),
    result.p99Ms.toFixed(0),
    percent(result.refused, result),
    percent(result.late, result),
    String(result.mostPods),
    result.podHours.toFixed(1),
    (result.podHours * price).toFixed(2),
  ]);
  const head = [
    "policy",
    "requests",
    "p50 ms",
    "p99 ms",
    "refused",
    "late",
    "most pods",
    "pod-hours",
    "cost",
  ];
  return [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

try {
  await main();
} catch (error) {
  const isUsage =
    error instanceof RangeError || /^ERR_PARSE_ARGS|^ENOENT/.test((error as { code?: string }).code ?? "");
  console.error(isUsage ? (error as Error).message : error);
  process.exitCode = 1;
}
