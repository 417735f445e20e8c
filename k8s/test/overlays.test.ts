import {
  addon,
  apply,
  type Cluster,
  COMPONENTS,
  component,
  makeDisks,
  makeSecrets,
  NAMESPACE,
  overlay,
  PATIENCE_MS,
  ready,
  SERVICES,
  skew,
  startCluster,
  withOverlay,
} from "./cluster.ts";

let cluster: Cluster;

beforeAll(async () => {
  cluster = await startCluster();
  for (const kind of KINDS) {
    // Of the Gateway API the server asks that somebody has approved it.
    const annotations = { "api-approved.kubernetes.io": "unapproved, for a test" };
    await cluster.api("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", {
      ...kind,
      metadata: { ...kind.metadata, annotations },
    });
  }
}, PATIENCE_MS);
afterAll(() => cluster?.stop());

afterEach(async () => {
  await cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=60s");
  await cluster.kubectl("delete", "persistentvolumes", "--all");
}, PATIENCE_MS);

/**
 * Kinds of others, as far as this API server has to know them. What of them is in the overlays was checked against their
 * own schemas, as the packages `@kubernetes-models/*` have them.
 */
const KINDS = [
  { group: "cloud.google.com", kind: "BackendConfig" },
  { group: "gateway.networking.k8s.io", kind: "Gateway" },
  { group: "gateway.networking.k8s.io", kind: "HTTPRoute" },
  { group: "keda.sh", kind: "ScaledObject", version: "v1alpha1" },
  { group: "monitoring.coreos.com", kind: "PodMonitor" },
  { group: "monitoring.coreos.com", kind: "PrometheusRule" },
].map(({ group, kind, version = "v1" }: { group: string; kind: string; version?: string }) => {
  const singular = kind.toLowerCase();
  return {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: { name: `${singular}s.${group}` },
    spec: {
      group,
      names: { plural: `${singular}s`, singular, kind },
      scope: "Namespaced",
      versions: [
        {
          name: version,
          served: true,
          storage: true,
          schema: { openAPIV3Schema: { type: "object", "x-kubernetes-preserve-unknown-fields": true } },
        },
      ],
    },
  };
});

test.each([
  { name: "local", disks: "standard", members: 1, pods: 1 },
  { name: "production", disks: "standard", members: 3, pods: 3 },
  { name: "gke", disks: "dl-lambda-ssd", members: 3, pods: 3 },
])(
  "$name is accepted without a warning, and all of it comes up, spread over the zones",
  async ({ name, disks, members, pods }) => {
    if (name !== "local") await makeSecrets(cluster);
    await makeDisks(cluster, disks);
    await apply(cluster, overlay(name));
    await cluster.kubectl(
      "-n",
      NAMESPACE,
      "wait",
      "deployment",
      "--all",
      "--for=condition=Available",
      "--timeout=100s",
    );
    expect(await skew(cluster, await ready(cluster, "rabbitmq", members))).toBeLessThanOrEqual(1);
    for (const service of SERVICES) {
      expect(await skew(cluster, await ready(cluster, service, pods))).toBeLessThanOrEqual(1);
    }
    // What controllers have written since, as the number of pods, is not ours to write back. kubectl fails on a difference.
    await cluster.kubectl("diff", "--server-side", "-k", overlay(name));
  },
  PATIENCE_MS,
);

test(
  "the components that production leaves out are accepted without a warning",
  async () => {
    await makeSecrets(cluster);
    const components = COMPONENTS.filter((name) => name !== "rabbitmq-cluster").map(component);
    expect(components.length).toBeGreaterThan(0);
    const kustomization = { resources: [overlay("production")], components };
    await withOverlay(kustomization, (folder) => apply(cluster, folder));
  },
  PATIENCE_MS,
);

test(
  "the adapter between Prometheus and the autoscalers is accepted without a warning, and comes up",
  async () => {
    await cluster.kubectl("create", "namespace", "monitoring");
    await apply(cluster, addon("prometheus-adapter"));
    await cluster.kubectl(
      "-n",
      "monitoring",
      "wait",
      "deployment/prometheus-adapter",
      "--for=condition=Available",
      "--timeout=100s",
    );
    // It only seems to run: an API that does not answer would keep namespaces from being deleted.
    await cluster.kubectl("delete", "-k", addon("prometheus-adapter"));
  },
  PATIENCE_MS,
);

test("applying it to another namespace by mistake is refused", async () => {
  await expect(
    cluster.kubectl("apply", "--server-side", "-n", "default", "-k", overlay("local")),
  ).rejects.toThrow(/the namespace from the provided object "dl-lambda" does not match/);
});

test("a field that does not exist is refused: the strictness is real", async () => {
  const deployment = {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name: "x" },
    spec: { replica: 1 },
  };
  await expect(
    cluster.api(
      "PATCH",
      "/apis/apps/v1/namespaces/default/deployments/x?fieldManager=test&fieldValidation=Strict",
      deployment,
      "application/apply-patch+yaml",
    ),
  ).rejects.toThrow(/replica/);
});
