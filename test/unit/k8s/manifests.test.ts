import { parseAllDocuments } from "yaml";
import { scaledObjects, serviceManifests } from "../../../k8s/generate/files.ts";
import { resolveNeeds } from "../../../k8s/generate/needs.ts";
import type { Deploy } from "../../../lib/deploy.ts";
import { VARIABLES } from "../../../lib/env.ts";

type Json = Record<string, unknown>;

const needsOf = (deploy: Deploy) =>
  resolveNeeds([{ file: "services/fox.service.ts", base: "fox", name: "fox", deploy }]);

/** The manifests of a service by kind, as they stand in its file. */
function manifestsOf(deploy: Deploy): Readonly<Record<string, Json>> {
  const text = serviceManifests(needsOf(deploy), "image:1").get("fox.yaml") ?? "";
  const documents = parseAllDocuments(text).map((document) => document.toJS() as Json | null);
  return Object.fromEntries(documents.flatMap((each) => (each ? [[String(each["kind"]), each]] : [])));
}

/** What is at `path` (`spec.containers.0.name`). */
function at(value: unknown, path: string): unknown {
  return path.split(".").reduce<unknown>((inner, key) => (inner as Json | undefined)?.[key], value);
}

const POD = "spec.template.spec";
const CONTAINER = `${POD}.containers.0`;

/** The container's own variables by name. */
function environment(deployment: unknown): Readonly<Record<string, unknown>> {
  const list = at(deployment, `${CONTAINER}.env`) as { name: string; value?: string; valueFrom?: unknown }[];
  expect(new Set(list.map(({ name }) => name)).size).toBe(list.length);
  return Object.fromEntries(list.map(({ name, value, valueFrom }) => [name, value ?? valueFrom]));
}

test("a model has everything but a Service", () => {
  expect(Object.keys(manifestsOf({ role: "model" })).sort()).toEqual([
    "Deployment",
    "HorizontalPodAutoscaler",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "ServiceAccount",
  ]);
  expect(Object.keys(manifestsOf({ role: "gateway" }))).toContain("Service");
});

test("the grace has room for the drain, and for a gateway's leave of the load balancer before it", () => {
  const graceOf = (deploy: Deploy) =>
    at(manifestsOf(deploy)["Deployment"], `${POD}.terminationGracePeriodSeconds`);
  expect(graceOf({ role: "model" })).toBe(25 + 5);
  expect(graceOf({ role: "gateway" })).toBe(10 + 25 + 5);
  expect(graceOf({ role: "model", env: { DRAIN_GRACE_MS: 40_500 } })).toBe(41 + 5);
  const { Deployment } = manifestsOf({ role: "model", env: { DRAIN_GRACE_MS: 40_500 } });
  expect(environment(Deployment)["DRAIN_GRACE_MS"]).toBe("40500");
});

test("threads follow the CPU limit unless the service fixes them", () => {
  expect(environment(manifestsOf({ role: "model" })["Deployment"])["ENGINE_THREADS"]).toEqual({
    resourceFieldRef: { containerName: "fox", resource: "limits.cpu" },
  });
  const fixed = manifestsOf({ role: "model", env: { ENGINE_THREADS: 1 } });
  expect(environment(fixed["Deployment"])["ENGINE_THREADS"]).toBe("1");
  expect(environment(manifestsOf({ role: "dispatcher" })["Deployment"])).not.toHaveProperty("ENGINE_THREADS");
});

test("secrets are references that must exist, read before what is made of them", () => {
  const { Deployment } = manifestsOf({ role: "dispatcher" });
  const variables = environment(Deployment);
  expect(variables["RABBITMQ_PASSWORD"]).toEqual({ secretKeyRef: { name: "rabbitmq", key: "password" } });
  expect(variables["REDIS_PASSWORD"]).toEqual({ secretKeyRef: { name: "redis", key: "password" } });
  const order = Object.keys(variables);
  expect(order.indexOf("RABBITMQ_PASSWORD")).toBeLessThan(order.indexOf("TRANSPORTER"));
  expect(order.indexOf("REDIS_PASSWORD")).toBeLessThan(order.indexOf("REDIS_URL"));
});

test("the keys of who may control models are a reference, of the gateway alone, and need not be there", () => {
  const keys = (role: "gateway" | "dispatcher" | "model") =>
    environment(manifestsOf({ role })["Deployment"])["ADMIN_KEYS"];
  expect(keys("gateway")).toEqual({ secretKeyRef: { name: "admin", key: "keys", optional: true } });
  expect([keys("dispatcher"), keys("model")]).toEqual([undefined, undefined]);
});

test.each(["gateway", "dispatcher", "model", "service"] as const)(
  "a %s is told nothing that it would not read",
  (role) => {
    const { Deployment } = manifestsOf({ role });
    const known = [...Object.keys(VARIABLES), "RABBITMQ_USERNAME", "RABBITMQ_PASSWORD", "REDIS_PASSWORD"];
    expect(Object.keys(environment(Deployment)).filter((name) => !known.includes(name))).toEqual([]);
  },
);

test("no pod may do more than it needs", () => {
  const { Deployment, ServiceAccount } = manifestsOf({});
  expect(ServiceAccount).toMatchObject({ automountServiceAccountToken: false });
  expect(at(Deployment, POD)).toMatchObject({
    automountServiceAccountToken: false,
    securityContext: { runAsNonRoot: true, runAsUser: 1000, seccompProfile: { type: "RuntimeDefault" } },
  });
  expect(at(Deployment, `${CONTAINER}.securityContext`)).toEqual({
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ["ALL"] },
  });
});

test("request and limit are the same, in Kubernetes' units", () => {
  const resources = (deploy: Deploy) => at(manifestsOf(deploy)["Deployment"], `${CONTAINER}.resources`);
  const two = { cpu: "2", memory: "768Mi" };
  expect(resources({ cpu: 2, memoryMiB: 768 })).toEqual({ requests: two, limits: two });
  expect(resources({ cpu: 0.25 })).toMatchObject({ limits: { cpu: "250m" } });
});

test("the number of pods is the autoscaler's alone", () => {
  const { Deployment, HorizontalPodAutoscaler } = manifestsOf({ replicas: { min: 3, max: 7 } });
  expect(at(Deployment, "spec")).not.toHaveProperty("replicas");
  expect(at(HorizontalPodAutoscaler, "spec")).toMatchObject({ minReplicas: 3, maxReplicas: 7 });
});

test("by CPU: nothing happens between 20 and 80 % of the service's own container", () => {
  const { HorizontalPodAutoscaler } = manifestsOf({ scaling: "cpu" });
  expect(at(HorizontalPodAutoscaler, "spec.metrics")).toEqual([
    {
      type: "ContainerResource",
      containerResource: {
        name: "cpu",
        container: "fox",
        target: { type: "Utilization", averageUtilization: 80 },
      },
    },
  ]);
  expect(at(HorizontalPodAutoscaler, "spec.behavior.scaleUp.tolerance")).toBe(0);
  expect(at(HorizontalPodAutoscaler, "spec.behavior.scaleDown.tolerance")).toBe(0.75);
});

test.each(["rule", "queue"] as const)("by %s: as many pods as the recording rule says", (policy) => {
  const { HorizontalPodAutoscaler } = manifestsOf({ role: "model", scaling: policy });
  expect(at(HorizontalPodAutoscaler, "spec.metrics")).toEqual([
    {
      type: "External",
      external: {
        metric: {
          name: "dl_lambda_wanted_replicas",
          selector: { matchLabels: { deployment: "fox", policy } },
        },
        target: { type: "AverageValue", averageValue: "1" },
      },
    },
  ]);
  // With the usual 10 % a step of one would do nothing from ten pods on.
  expect(at(HorizontalPodAutoscaler, "spec.behavior.scaleUp.tolerance")).toBe(0);
  expect(at(HorizontalPodAutoscaler, "spec.behavior.scaleDown.tolerance")).toBe(0);
});

test.each([
  ["cpu", "rule"],
  ["rule", "rule"],
  ["queue", "queue"],
] as const)(
  "where KEDA is, %s is by the rule that records %s, with the same bounds and steps",
  (scaling, policy) => {
    const deploy: Deploy = { role: "model", scaling, replicas: { min: 3, max: 7 } };
    const [made] = parseAllDocuments(scaledObjects(needsOf(deploy)))
      .map((document) => document.toJS() as Json | null)
      .filter((object) => object !== null);
    expect(at(made, "spec.scaleTargetRef")).toEqual({ name: "fox" });
    expect([at(made, "spec.minReplicaCount"), at(made, "spec.maxReplicaCount")]).toEqual([3, 7]);
    expect(at(made, "spec.triggers.0")).toMatchObject({
      type: "prometheus",
      metricType: "AverageValue",
      metadata: {
        query: `max(dl_lambda_wanted_replicas{namespace="dl-lambda",deployment="fox",policy="${policy}"})`,
        threshold: "1",
        ignoreNullValues: "false",
      },
    });
    const { HorizontalPodAutoscaler } = manifestsOf({ role: "model", scaling: policy });
    for (const way of ["scaleUp", "scaleDown"]) {
      const path = `spec.advanced.horizontalPodAutoscalerConfig.behavior.${way}`;
      // KEDA's kind has no tolerances.
      expect({ ...(at(made, path) as Json), tolerance: 0 }).toEqual(
        at(HorizontalPodAutoscaler, `spec.behavior.${way}`),
      );
    }
  },
);

test("only a gateway lets HTTP in, and only who uses Redis gets there", () => {
  const model = manifestsOf({ role: "model" })["NetworkPolicy"];
  const gateway = manifestsOf({ role: "gateway" })["NetworkPolicy"];
  expect(JSON.stringify(at(model, "spec.ingress"))).not.toContain('"http"');
  expect(at(gateway, "spec.ingress.0")).toEqual({ ports: [{ protocol: "TCP", port: "http" }] });
  expect(JSON.stringify(model)).not.toContain("6379");
  expect(JSON.stringify(gateway)).toContain("6379");
});
