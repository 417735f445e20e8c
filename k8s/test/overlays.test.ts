import {
  apply,
  type Cluster,
  makeDisks,
  makeSecrets,
  NAMESPACE,
  overlay,
  PATIENCE_MS,
  ready,
  SERVICES,
  skew,
  startCluster,
} from "./cluster.ts";

let cluster: Cluster;

beforeAll(async () => {
  cluster = await startCluster();
  await cluster.api("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", BACKEND_CONFIG);
}, PATIENCE_MS);
afterAll(() => cluster?.stop());

afterEach(async () => {
  await cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=60s");
  await cluster.kubectl("delete", "persistentvolumes", "--all");
}, PATIENCE_MS);

/** Google's kind, as far as this API server has to know it. Its fields were checked against Google's own schema. */
const BACKEND_CONFIG = {
  apiVersion: "apiextensions.k8s.io/v1",
  kind: "CustomResourceDefinition",
  metadata: { name: "backendconfigs.cloud.google.com" },
  spec: {
    group: "cloud.google.com",
    names: { plural: "backendconfigs", singular: "backendconfig", kind: "BackendConfig" },
    scope: "Namespaced",
    versions: [
      {
        name: "v1",
        served: true,
        storage: true,
        schema: { openAPIV3Schema: { type: "object", "x-kubernetes-preserve-unknown-fields": true } },
      },
    ],
  },
};

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
