import { eventually } from "../../testkit/eventually.ts";
import {
  apply,
  byZone,
  type Cluster,
  deploymentOf,
  isReady,
  LONE_NODE,
  makeDisks,
  makeSecrets,
  NAMESPACE,
  overlay,
  PATIENCE_MS,
  type Pod,
  podsOf,
  ready,
  SERVICES,
  skew,
  startCluster,
  withOverlay,
  ZONES,
} from "./cluster.ts";
import { ApiError } from "./control-plane.ts";

const MANY_PODS = 1000;

let cluster: Cluster;

beforeAll(async () => {
  cluster = await startCluster();
  await makeSecrets(cluster);
  await makeDisks(cluster, "standard");
  await withOverlay({ resources: [overlay("production")], patches: [SOON] }, (folder) =>
    apply(cluster, folder),
  );
  await ready(cluster, "rabbitmq", 3);
  for (const service of SERVICES) await ready(cluster, service, 3);
}, 2 * PATIENCE_MS);
afterAll(() => cluster?.stop());

/** A silent node's pods are replaced after two seconds instead of half a minute. */
const SOON = {
  target: { kind: "Deployment", labelSelector: "app.kubernetes.io/component" },
  patch: JSON.stringify(
    [0, 1].map((index) => ({
      op: "replace",
      path: `/spec/template/spec/tolerations/${index}/tolerationSeconds`,
      value: 2,
    })),
  ),
};

const kubectl = (...args: string[]) => cluster.kubectl("-n", NAMESPACE, ...args);

function evict({ metadata }: Pod): Promise<unknown> {
  return cluster.api("POST", `/api/v1/namespaces/${NAMESPACE}/pods/${metadata.name}/eviction`, {
    apiVersion: "policy/v1",
    kind: "Eviction",
    metadata: { name: metadata.name, namespace: NAMESPACE },
  });
}

const names = (pods: readonly Pod[]) => pods.map(({ metadata }) => metadata.name);

test(
  "a rolling update never has fewer ready pods than before",
  async () => {
    const service = "resnet-cat";
    const before = await ready(cluster, service, 3);
    const readyNow = new Set(names(before));
    let fewest = readyNow.size;
    const selector = encodeURIComponent(`app.kubernetes.io/name=${service}`);
    const end = await cluster.watch<Pod>(
      `/api/v1/namespaces/${NAMESPACE}/pods?labelSelector=${selector}`,
      (type, pod) => {
        const serves = type !== "DELETED" && isReady(pod) && !pod.metadata.deletionTimestamp;
        if (serves) readyNow.add(pod.metadata.name);
        else readyNow.delete(pod.metadata.name);
        fewest = Math.min(fewest, readyNow.size);
      },
    );
    await kubectl("rollout", "restart", `deployment/${service}`);
    await kubectl("rollout", "status", `deployment/${service}`, "--timeout=100s");
    const after = await ready(cluster, service, 3);
    end();
    expect(names(after).some((name) => names(before).includes(name))).toBe(false);
    expect(fewest).toBe(3);
    expect(await skew(cluster, after)).toBeLessThanOrEqual(1);
  },
  PATIENCE_MS,
);

test(
  "an eviction that would break a budget is refused, and allowed once the pod is replaced",
  async () => {
    const [first, second] = await ready(cluster, "dispatcher", 3);
    if (!first || !second) throw new Error("Expected two pods");
    await evict(first);
    await expect(evict(second)).rejects.toMatchObject({ name: ApiError.name, status: 429 });
    await ready(cluster, "dispatcher", 3);
    await eventually(() => evict(second).then(() => true), PATIENCE_MS);
    await ready(cluster, "dispatcher", 3);
  },
  PATIENCE_MS,
);

test(
  "RabbitMQ gives up one member at a time",
  async () => {
    const members = await ready(cluster, "rabbitmq", 3);
    const [first, second] = members;
    if (!first || !second) throw new Error("Expected two members");
    await evict(first);
    await expect(evict(second)).rejects.toMatchObject({ status: 429 });
    // Back under its name, with its disk and so in its zone.
    const back = await eventually(async () => {
      const pods = await ready(cluster, "rabbitmq", 3);
      const again = pods.find(({ metadata }) => metadata.name === first.metadata.name);
      if (!again || again.metadata.uid === first.metadata.uid)
        throw new Error(`${first.metadata.name} is not back`);
      return again;
    }, PATIENCE_MS);
    expect(await byZone(cluster, [back])).toEqual(await byZone(cluster, [first]));
  },
  PATIENCE_MS,
);

test(
  "kubectl scale gives a Deployment five pods",
  async () => {
    await kubectl("scale", "deployment/resnet-cat", "--replicas=5");
    expect(await skew(cluster, await ready(cluster, "resnet-cat", 5))).toBeLessThanOrEqual(1);
    await kubectl("scale", "deployment/resnet-cat", "--replicas=3");
    await ready(cluster, "resnet-cat", 3);
  },
  PATIENCE_MS,
);

test(
  "a pod that finds no room waits without harm to the others, and is placed when a node joins",
  async () => {
    // Its autoscaler would take the pods away again.
    await kubectl("delete", "hpa", "resnet-dog");
    const others = names((await Promise.all(SERVICES.map((service) => podsOf(cluster, service)))).flat());
    await kubectl("scale", "deployment/resnet-dog", "--replicas=80");
    const waiting = await eventually(async () => {
      const pods = await podsOf(cluster, "resnet-dog");
      const without = pods.filter(({ spec }) => !spec.nodeName);
      const placed = pods.length - without.length;
      const settled = pods.length === 80 && pods.filter(isReady).length === placed;
      if (!settled || without.length === 0 || !without.every(isUnschedulable))
        throw new Error("Not all are placed or refused");
      return without;
    }, PATIENCE_MS);
    const still = (await Promise.all(SERVICES.map((service) => podsOf(cluster, service))))
      .flat()
      .filter(isReady);
    expect(names(still)).toEqual(expect.arrayContaining(others));

    await cluster.nodes.add("joined", { zone: "b", cores: 2 * waiting.length });
    const placed = await ready(cluster, "resnet-dog", 80);
    const joined = placed.filter(({ spec }) => spec.nodeName === "joined");
    expect(names(joined).sort()).toEqual(names(waiting).sort());
    await kubectl("scale", "deployment/resnet-dog", "--replicas=3");
    await ready(cluster, "resnet-dog", 3);
  },
  2 * PATIENCE_MS,
);

function isUnschedulable({ status }: Pod): boolean {
  return status.conditions?.some(({ reason }) => reason === "Unschedulable") ?? false;
}

test(
  "a thousand pods of one Deployment are placed, evenly over the zones",
  async () => {
    for (const zone of ZONES) await cluster.nodes.add(`large-${zone}`, { zone, cores: 1000, pods: 500 });
    await kubectl("scale", "deployment/resnet-dog", `--replicas=${MANY_PODS}`);
    const pods = await ready(cluster, "resnet-dog", MANY_PODS);
    expect(await skew(cluster, pods)).toBeLessThanOrEqual(MANY_PODS / 100);
    await kubectl("scale", "deployment/resnet-dog", "--replicas=3");
    await ready(cluster, "resnet-dog", 3);
    for (const zone of ZONES) await kubectl("delete", "node", `large-${zone}`);
    await kubectl("delete", "node", "joined");
    await ready(cluster, "resnet-dog", 3);
  },
  3 * PATIENCE_MS,
);

test(
  "of a lost node only its own pods are replaced, and of a lost zone every service goes on in the others",
  async () => {
    // Enough for one on every node.
    await kubectl("scale", "deployment/resnet-dog", "--replicas=18");
    const pods = await ready(cluster, "resnet-dog", 18);
    const elsewhere = pods.filter(({ spec }) => spec.nodeName !== LONE_NODE);
    expect(elsewhere.length).toBeLessThan(18);
    cluster.nodes.lose(LONE_NODE);
    await eventually(async () => {
      const replaced = await ready(cluster, "resnet-dog", 18);
      expect(names(replaced)).toEqual(expect.arrayContaining(names(elsewhere)));
      return replaced.every(({ spec }) => spec.nodeName !== LONE_NODE);
    }, PATIENCE_MS);
    await kubectl("scale", "deployment/resnet-dog", "--replicas=3");

    cluster.nodes.lose("a");
    for (const service of SERVICES) {
      await eventually(async () => {
        const counts = await byZone(cluster, await ready(cluster, service, 3));
        const { status } = await deploymentOf(cluster, service);
        expect(status.readyReplicas).toBe(3);
        return counts["a"] === 0;
      }, PATIENCE_MS);
    }
    // Its third member's disk is in the lost zone; two of three are a majority.
    const members = (await podsOf(cluster, "rabbitmq")).filter(isReady);
    expect(await byZone(cluster, members)).toEqual({ a: 0, b: 1, c: 1 });
  },
  3 * PATIENCE_MS,
);
