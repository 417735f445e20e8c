import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Deploy } from "../../lib/deploy.ts";
import { Hpa, type HpaMetric, type HpaSpec } from "../../simulate/hpa.ts";
import { eventually } from "../../testkit/eventually.ts";
import { type Prometheus, startPrometheus } from "../../testkit/prometheus.ts";
import { autoscaler, CPU_RULE, WANTED_REPLICAS } from "../generate/autoscaler.ts";
import type { Declared } from "../generate/declared.ts";
import { serviceManifests } from "../generate/files.ts";
import { resolveNeeds } from "../generate/needs.ts";
import {
  apply,
  type Cluster,
  deploymentOf,
  makeSecrets,
  NAMESPACE,
  PATIENCE_MS,
  ready,
  startCluster,
  withOverlay,
} from "./cluster.ts";
import type { KubeObject } from "./control-plane.ts";
import { type Load, type MetricsServer, serveMetrics } from "./metrics-server.ts";

/** The policies' windows and periods, and what they are here: the controllers are real, their patience is short. */
const SHORTENED: Readonly<Record<number, number>> = { 600: 12, 60: 5, 30: 3 };
const UP_MS = 5_000;
const DOWN_MS = 12_000;

/** The controller looks every second, and tells whole seconds. */
const GRAIN_MS = 2_000;

const SERVICES = [
  service("by-cpu", { scaling: "cpu", replicas: { min: 2, max: 5 } }),
  service("by-rule", { scaling: "rule", replicas: { min: 2, max: 14 } }),
  service("by-queue", { scaling: "queue", replicas: { min: 2, max: 12 } }),
  service("by-prometheus", { scaling: "rule", replicas: { min: 2, max: 5 } }),
  service("cpu-trace", { scaling: "cpu", replicas: { min: 2, max: 4 } }),
  service("queue-trace", { scaling: "queue", replicas: { min: 2, max: 12 } }),
];

function service(name: string, deploy: Deploy): Declared {
  return { file: `${name}.service.ts`, base: name, name, deploy: { role: "model", ...deploy } };
}

interface Autoscaler extends KubeObject {
  readonly status?: {
    readonly desiredReplicas: number;
    readonly lastScaleTime?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
  };
}

/** A change of the number of pods that the controller decided. */
interface Decision {
  readonly at: number;
  readonly replicas: number;
}

/** Wanted pods of the Deployments that Prometheus is not asked for. */
const wanted = new Map<string, number>();
const load: Load = {
  cpu: new Map(),
  wanted: async (deployment, policy) =>
    deployment === "by-prometheus" ? recorded(deployment, policy) : wanted.get(deployment),
};
let prometheus: Prometheus;
const decisions = new Map<string, Decision[]>();
let cluster: Cluster;
let ends: (() => unknown)[] = [];

beforeAll(async () => {
  cluster = await startCluster();
  ends = [() => cluster.stop()];
  const metrics = await serveMetrics(cluster, load);
  ends.unshift(metrics.stop);
  prometheus = await prometheusOver(metrics);
  ends.unshift(prometheus.stop);
  ends.unshift(await cluster.watch("/apis/autoscaling/v2/horizontalpodautoscalers", note));
  const services = resolveNeeds(SERVICES);
  for (const { name, min } of services) {
    load.cpu.set(name, 0.5);
    wanted.set(name, min);
  }
  const manifests = new Map(
    [...serviceManifests(services, "dl-lambda:test")].filter(([name]) => name !== "kustomization.yaml"),
  );
  const resources = [...manifests.keys()];
  const patches = services.map((needs) => ({
    target: { kind: "HorizontalPodAutoscaler", name: needs.name },
    patch: JSON.stringify([
      { op: "replace", path: "/spec/behavior", value: shortened(autoscaler(needs, {}).spec?.behavior) },
    ]),
  }));
  await makeSecrets(cluster);
  await withOverlay({ resources, patches }, (folder) => apply(cluster, folder), manifests);
  for (const { name, min } of services) {
    await ready(cluster, name, min);
    await eventually(() => isActive(name), PATIENCE_MS);
  }
}, 2 * PATIENCE_MS);

afterAll(async () => {
  for (const end of ends) await end();
});

/** With the times of {@link SHORTENED}; a time that is not in it stays. */
function shortened(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(shortened);
  const short = ([key, inner]: [string, unknown]) =>
    [key, key.endsWith("Seconds") ? (SHORTENED[Number(inner)] ?? inner) : shortened(inner)] as const;
  return Object.fromEntries(Object.entries(value).map(short));
}

/** A Prometheus that evaluates the rules, with their times shortened, over what the metrics server tells. */
async function prometheusOver({ port }: MetricsServer): Promise<Prometheus> {
  const rules = await readFile(resolve(import.meta.dirname, "../scaling/rules.yaml"), "utf8");
  const short = (seconds: number) => `${SHORTENED[seconds]}s`;
  const folder = await mkdtemp(join(tmpdir(), "rules-"));
  ends.unshift(() => rm(folder, { recursive: true }));
  const file = join(folder, "rules.yaml");
  await writeFile(
    file,
    rules
      .replaceAll(/(\[|offset )10m/g, `$1${short(600)}`)
      .replaceAll(/(\[|offset )1m/g, `$1${short(60)}`)
      .replace("interval: 15s", "interval: 1s"),
  );
  return startPrometheus({
    global: { scrape_interval: "1s", evaluation_interval: "1s" },
    rule_files: [file],
    scrape_configs: [
      {
        job_name: "cluster",
        scheme: "https",
        tls_config: { insecure_skip_verify: true },
        static_configs: [{ targets: [`127.0.0.1:${port}`] }],
      },
    ],
  });
}

async function recorded(deployment: string, policy: string): Promise<number | undefined> {
  const [sample] = await prometheus.query(
    `${WANTED_REPLICAS}{deployment="${deployment}",policy="${policy}"}`,
  );
  return sample?.value;
}

function note(_type: string, { metadata, status }: Autoscaler): void {
  if (!status?.lastScaleTime) return;
  const made = decisions.get(metadata.name) ?? [];
  decisions.set(metadata.name, made);
  const at = Date.parse(status.lastScaleTime);
  if (made.at(-1)?.at !== at) made.push({ at, replicas: status.desiredReplicas });
}

async function isActive(name: string): Promise<boolean> {
  const path = `/apis/autoscaling/v2/namespaces/${NAMESPACE}/horizontalpodautoscalers/${name}`;
  const { status } = await cluster.api<Autoscaler>("GET", path);
  return (
    status?.conditions?.some(({ type, status }) => type === "ScalingActive" && status === "True") ?? false
  );
}

/** What is decided of a service from now on. */
function decisionsFrom(name: string): { readonly since: number; readonly made: () => readonly Decision[] } {
  const before = decisions.get(name)?.length ?? 0;
  return { since: Date.now(), made: () => decisions.get(name)?.slice(before) ?? [] };
}

/** Waits for so many pods to be wanted, then as long again as the policy takes for a step, for one too many. */
async function settled(name: string, replicas: number, stepMs: number): Promise<void> {
  await eventually(async () => (await deploymentOf(cluster, name)).spec.replicas === replicas, PATIENCE_MS);
  await delay(stepMs + GRAIN_MS);
  expect((await deploymentOf(cluster, name)).spec.replicas).toBe(replicas);
}

const replicasOf = (made: readonly Decision[]) => made.map(({ replicas }) => replicas);
const gapsOf = (made: readonly Decision[]) =>
  made.slice(1).map(({ at }, index) => at - (made[index]?.at ?? 0));

/** HPA by itself, and the rule as a real Prometheus evaluates it on what its own decisions bring. */
describe("by CPU, and by the rule", () => {
  const names = ["by-cpu", "by-prometheus"];
  /** @param edge so much more for HPA alone: it is exact at the marks, an average of floats is not */
  const use = (share: number, edge = 0) => {
    load.cpu.set("by-cpu", share + edge);
    load.cpu.set("by-prometheus", share);
  };

  test(
    "one pod more in each window above 80 %, and no more than the most",
    async () => {
      const [byCpu, byRule] = names.map(decisionsFrom);
      use(0.95);
      for (const name of names) await settled(name, 5, UP_MS);
      for (const each of [byCpu, byRule]) {
        const made = each?.made() ?? [];
        expect(replicasOf(made)).toEqual([3, 4, 5]);
        for (const gap of gapsOf(made)) expect(gap).toBeGreaterThanOrEqual(UP_MS - GRAIN_MS / 2);
      }
      // An average is above the mark before all looks are.
      const first = byCpu?.made()[0]?.at ?? 0;
      expect(first - (byCpu?.since ?? 0)).toBeGreaterThanOrEqual(UP_MS - GRAIN_MS);
    },
    PATIENCE_MS,
  );

  test(
    "nothing between 20 and 80 %, however long",
    async () => {
      const all = names.map(decisionsFrom);
      use(0.79, 0.01);
      await delay(UP_MS + GRAIN_MS);
      use(0.21, -0.01);
      await delay(DOWN_MS + GRAIN_MS);
      for (const { made } of all) expect(made()).toEqual([]);
    },
    PATIENCE_MS,
  );

  test(
    "one pod fewer in each window below 20 %, and no fewer than the least",
    async () => {
      const [byCpu, byRule] = names.map(decisionsFrom);
      use(0.15);
      for (const name of names) await settled(name, 2, DOWN_MS);
      for (const each of [byCpu, byRule]) {
        const made = each?.made() ?? [];
        expect(replicasOf(made)).toEqual([4, 3, 2]);
        for (const gap of gapsOf(made)) expect(gap).toBeGreaterThanOrEqual(DOWN_MS - GRAIN_MS / 2);
      }
      const first = byCpu?.made()[0]?.at ?? 0;
      expect(first - (byCpu?.since ?? 0)).toBeGreaterThanOrEqual(DOWN_MS - GRAIN_MS);
    },
    PATIENCE_MS,
  );

  test(
    "nothing for peaks that are shorter than the window",
    async () => {
      const all = names.map(decisionsFrom);
      for (let peak = 0; peak < 4; peak++) {
        use(0.95);
        await delay(UP_MS / 4);
        use(0.5);
        await delay(UP_MS / 2);
      }
      for (const { made } of all) expect(made()).toEqual([]);
    },
    PATIENCE_MS,
  );
});

describe("by the recording rule's value", () => {
  const name = "by-rule";
  const want = (replicas: number) => wanted.set(name, replicas);

  test(
    "a step of one is taken also from more than ten pods",
    async () => {
      // Without a value the autoscaler leaves it to us.
      wanted.delete(name);
      await eventually(async () => !(await isActive(name)), PATIENCE_MS);
      await cluster.kubectl("-n", NAMESPACE, "scale", `deployment/${name}`, "--replicas=12");
      await ready(cluster, name, 12);
      want(12);
      await eventually(() => isActive(name), PATIENCE_MS);
      const { made } = decisionsFrom(name);
      want(13);
      await settled(name, 13, UP_MS);
      want(12);
      await settled(name, 12, UP_MS);
      expect(replicasOf(made())).toEqual([13, 12]);
    },
    PATIENCE_MS,
  );

  test(
    "more at once than one in a window is not taken, nor more than the most",
    async () => {
      const { made } = decisionsFrom(name);
      want(99);
      await settled(name, 14, UP_MS);
      expect(replicasOf(made())).toEqual([13, 14]);
      for (const gap of gapsOf(made())) expect(gap).toBeGreaterThanOrEqual(UP_MS - GRAIN_MS / 2);
    },
    PATIENCE_MS,
  );

  test(
    "nothing while Prometheus has no answer",
    async () => {
      const { made } = decisionsFrom(name);
      wanted.delete(name);
      await eventually(async () => !(await isActive(name)), PATIENCE_MS);
      await delay(GRAIN_MS);
      expect(made()).toEqual([]);
    },
    PATIENCE_MS,
  );
});

describe("by the queue", () => {
  const name = "by-queue";
  const want = (replicas: number) => wanted.set(name, replicas);

  test(
    "twice as many at once, to what is wanted",
    async () => {
      const { made } = decisionsFrom(name);
      want(11);
      await settled(name, 11, UP_MS);
      expect(replicasOf(made())).toEqual([4, 8, 11]);
    },
    PATIENCE_MS,
  );

  test(
    "down to the most that was wanted in the window, one by one",
    async () => {
      const { since, made } = decisionsFrom(name);
      want(8);
      await delay(DOWN_MS / 3);
      want(9);
      await settled(name, 9, UP_MS);
      expect(replicasOf(made())).toEqual([10, 9]);
      expect(Number(made()[0]?.at) - since).toBeGreaterThanOrEqual(DOWN_MS - GRAIN_MS);
    },
    PATIENCE_MS,
  );
});

/** What is simulated is what happens: the simulator's autoscaler beside the real one, on the same traces. */
describe("the simulator decides as the controller does", () => {
  /** Seconds, and a value for as long. */
  type Trace = readonly (readonly [seconds: number, value: number])[];
  // To the most; a peak and a lull that are too short; a dip that begins the window for less anew; to the least.
  const CPU: Trace = [
    [18, 0.95],
    [3, 0.5],
    [3, 0.95],
    [6, 0.3],
    [8, 0.1],
    [2, 0.5],
    [32, 0.1],
  ];
  // Up twice as far at once; what was wanted in the window holds the way down.
  const QUEUE: Trace = [
    [4, 2],
    [10, 11],
    [4, 6],
    [3, 9],
    [36, 8],
  ];
  /** Seconds that the two may be apart: the real one looks every second, tells whole ones, and its pods take one to start. */
  const APART_S = 4;

  async function play(trace: Trace, set: (value: number) => void): Promise<void> {
    for (const [seconds, value] of trace) {
      set(value);
      await delay(1000 * seconds);
    }
  }

  /** Decisions of the simulator, in seconds from the beginning of the trace; before that the first value of a calm. */
  function simulated(name: string, trace: Trace, metricAt: (value: number, replicas: number) => HpaMetric) {
    const needs = resolveNeeds(SERVICES).find((each) => each.name === name);
    if (!needs) throw new Error(`Expected ${name} to be a service`);
    const behavior = shortened(autoscaler(needs, {}).spec?.behavior) as HpaSpec["behavior"];
    const hpa = new Hpa({ minReplicas: needs.min, maxReplicas: needs.max, behavior });
    let replicas = needs.min;
    const made: { at: number; replicas: number }[] = [];
    const values = trace.flatMap(([seconds, value]) => Array<number>(seconds).fill(value));
    for (const [second, value] of values.entries()) {
      const next = hpa.sync(second, replicas, metricAt(value, replicas));
      if (next !== replicas) made.push({ at: second, replicas: next });
      replicas = next;
    }
    return made;
  }

  test(
    "by CPU and by the queue",
    async () => {
      const [cpu, queue] = ["cpu-trace", "queue-trace"].map(decisionsFrom);
      await Promise.all([
        play(CPU, (value) => load.cpu.set("cpu-trace", value)),
        play(QUEUE, (value) => wanted.set("queue-trace", value)),
      ]);
      const pairs = [
        [
          cpu,
          // The controller cuts its average to whole percents.
          simulated("cpu-trace", CPU, (value, replicas) => ({
            type: "utilisation",
            ratio: Math.floor(100 * value) / CPU_RULE.highPercent,
            readyPods: replicas,
          })),
        ],
        [queue, simulated("queue-trace", QUEUE, (value) => ({ type: "wanted", replicas: value }))],
      ] as const;
      for (const [real, expected] of pairs) {
        const made = (real?.made() ?? []).map(({ at, replicas }) => {
          return { at: (at - (real?.since ?? 0)) / 1000, replicas };
        });
        expect(expected.length).toBeGreaterThan(3);
        expect(made.map(({ replicas }) => replicas)).toEqual(expected.map(({ replicas }) => replicas));
        for (const [index, { at }] of made.entries()) {
          expect(Math.abs(at - (expected[index]?.at ?? 0))).toBeLessThanOrEqual(APART_S);
        }
      }
    },
    PATIENCE_MS,
  );
});
