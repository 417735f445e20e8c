import { readdirSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import { stringify } from "yaml";
import { eventually } from "../../testkit/eventually.ts";
import { type ControlPlane, type KubeObject, startControlPlane } from "./control-plane.ts";

export const NAMESPACE = "dl-lambda";
export const ZONES = ["a", "b", "c"];
/** In zone a. */
export const LONE_NODE = "general-a1";
export const SERVICES = ["gateway", "dispatcher", "resnet-cat", "resnet-dog"];

/** How long a controller may take on a machine that has other things to do. */
export const PATIENCE_MS = 120_000;

const K8S = resolve(import.meta.dirname, "..");
/** Kustomize follows only relative paths, so test overlays lie in the project. */
const SCRATCH = resolve(K8S, "../build");

const ZONE = "topology.kubernetes.io/zone";
/** Nodes that are lost together. */
const FATE = "test/fate";
const IN_NAMESPACE = `/api/v1/namespaces/${NAMESPACE}`;

/** A node, or a pod. */
interface WithConditions extends KubeObject {
  readonly status: {
    readonly conditions?: readonly {
      readonly type: string;
      readonly status: string;
      readonly reason?: string;
    }[];
  };
}

export interface Pod extends WithConditions {
  readonly spec: { readonly nodeName?: string };
}

export interface Deployment extends KubeObject {
  readonly spec: { readonly replicas: number };
  readonly status: { readonly replicas?: number; readonly readyReplicas?: number };
}

/** A control plane with nodes in three zones. */
export interface Cluster extends ControlPlane {
  readonly nodes: Nodes;
}

/**
 * With room for what an overlay asks and little more: three nodes a zone, and one for RabbitMQ. One of them can be lost
 * by itself, the others of its zone together.
 */
export async function startCluster(): Promise<Cluster> {
  const binaries = process.env["K8S_BINARIES"];
  if (!binaries) throw new Error("Expected K8S_BINARIES to name a folder: see `npm run k8s:test`");
  const plane = await startControlPlane(binaries);
  const nodes = new Nodes(plane);
  for (const zone of ZONES) {
    await nodes.add(`rabbitmq-${zone}`, { zone, cores: 8, pool: "rabbitmq" });
    for (const number of [1, 2, 3]) {
      const name = `general-${zone}${number}`;
      await nodes.add(name, { zone, cores: 16, ...(name === LONE_NODE ? { fate: name } : {}) });
    }
  }
  await plane.api("POST", "/apis/storage.k8s.io/v1/storageclasses", {
    apiVersion: "storage.k8s.io/v1",
    kind: "StorageClass",
    metadata: { name: "standard", annotations: { "storageclass.kubernetes.io/is-default-class": "true" } },
    provisioner: "kubernetes.io/no-provisioner",
    volumeBindingMode: "WaitForFirstConsumer",
  });
  return Object.assign(plane, { nodes });
}

export interface NodeOptions {
  readonly zone: string;
  readonly cores: number;
  /** Pods it takes. */
  readonly pods?: number;
  /** Its pool, which keeps others away. */
  readonly pool?: string;
  /**
   * What it is lost with, see {@link Nodes.lose}.
   * @default its zone
   */
  readonly fate?: string;
}

export class Nodes {
  readonly #plane: ControlPlane;
  readonly #fates = new Map<string, () => void>();

  constructor(plane: ControlPlane) {
    this.#plane = plane;
  }

  async add(name: string, { zone, cores, pods = 110, pool, fate = zone }: NodeOptions): Promise<void> {
    if (!this.#fates.has(fate)) this.#fates.set(fate, await this.#plane.kubelets(`${FATE}=${fate}`));
    const capacity = { cpu: String(cores), memory: `${cores * 4}Gi`, pods: String(pods) };
    await this.#plane.api("POST", "/api/v1/nodes", {
      apiVersion: "v1",
      kind: "Node",
      metadata: {
        name,
        labels: {
          [ZONE]: zone,
          [FATE]: fate,
          "kubernetes.io/hostname": name,
          ...(pool ? { "dl-lambda/pool": pool } : {}),
        },
      },
      ...(pool ? { spec: { taints: [{ key: "dl-lambda/pool", value: pool, effect: "NoSchedule" }] } } : {}),
      status: { capacity, allocatable: capacity },
    });
    // No kubelet yet, no taint yet: what is scheduled by now could land anywhere.
    await eventually(
      async () => isReady(await this.#plane.api<WithConditions>("GET", `/api/v1/nodes/${name}`)),
      PATIENCE_MS,
    );
  }

  /** All nodes of a fate fall silent, as when machines or their network are gone. */
  lose(fate: string): void {
    this.#fates.get(fate)?.();
  }

  /** Zone by node name. */
  async zones(): Promise<ReadonlyMap<string, string>> {
    const nodes = await this.#plane.list<KubeObject>("/api/v1/nodes");
    return new Map(nodes.map(({ metadata }) => [metadata.name, String(metadata.labels?.[ZONE])]));
  }
}

/** Pods of a service, without those on their way out. */
export async function podsOf(plane: ControlPlane, service: string): Promise<readonly Pod[]> {
  const selector = encodeURIComponent(`app.kubernetes.io/name=${service}`);
  const pods = await plane.list<Pod>(`${IN_NAMESPACE}/pods?labelSelector=${selector}`);
  return pods.filter(({ metadata }) => !metadata.deletionTimestamp);
}

export function isReady({ status }: WithConditions): boolean {
  return status.conditions?.some(({ type, status }) => type === "Ready" && status === "True") ?? false;
}

export function deploymentOf(plane: ControlPlane, name: string): Promise<Deployment> {
  return plane.api("GET", `/apis/apps/v1/namespaces/${NAMESPACE}/deployments/${name}`);
}

/** Waits until so many pods of a service, and no others, are ready. */
export function ready(plane: ControlPlane, service: string, count: number): Promise<readonly Pod[]> {
  return eventually(async () => {
    const pods = await podsOf(plane, service);
    const are = pods.filter(isReady).length;
    if (are !== count || pods.length !== count) {
      throw new Error(`Expected ${count} ready pods of ${service} but found ${are} of ${pods.length}`);
    }
    return pods;
  }, PATIENCE_MS);
}

/** Pods by zone, for all zones. */
export async function byZone(
  cluster: Cluster,
  pods: readonly Pod[],
): Promise<Readonly<Record<string, number>>> {
  const zones = await cluster.nodes.zones();
  const counts = Object.fromEntries(ZONES.map((zone) => [zone, 0]));
  for (const { spec } of pods) {
    const zone = zones.get(spec.nodeName ?? "") ?? "none";
    counts[zone] = (counts[zone] ?? 0) + 1;
  }
  return counts;
}

/** Difference between the fullest and the emptiest zone. */
export async function skew(cluster: Cluster, pods: readonly Pod[]): Promise<number> {
  const counts = Object.values(await byZone(cluster, pods));
  return Math.max(...counts) - Math.min(...counts);
}

/** The namespace and the secrets, as k8s/README.md has them made before the first `apply`. */
export async function makeSecrets(plane: ControlPlane): Promise<void> {
  await plane.kubectl("apply", "-f", join(K8S, "base/namespace.yaml"));
  const literals = (pairs: object) =>
    Object.entries(pairs).map(([key, value]) => `--from-literal=${key}=${value}`);
  const create = (name: string, pairs: object) =>
    plane.kubectl("-n", NAMESPACE, "create", "secret", "generic", name, ...literals(pairs));
  await create("rabbitmq", { username: "dl-lambda", password: "secret", "erlang-cookie": "cookie" });
  await create("redis", { password: "secret" });
}

/** Applies a kustomization as strictly as the API server can; a warning is an error. */
export async function apply(plane: ControlPlane, folder: string): Promise<string> {
  const { stdout } = await plane.kubectl(
    "apply",
    "--server-side",
    "--validate=strict",
    "--warnings-as-errors",
    "-k",
    folder,
  );
  return stdout;
}

export const overlay = (name: string) => join(K8S, "overlays", name);
export const COMPONENTS = readdirSync(join(K8S, "components"));
export const component = (name: string) => join(K8S, "components", name);
export const addon = (name: string) => join(K8S, "addons", name);

interface Kustomization {
  readonly resources: readonly string[];
  readonly components?: readonly string[];
  readonly patches?: readonly object[];
}

/** Writes an overlay for a test and hands its folder to `use`. Files' names are relative to it. */
export async function withOverlay<T>(
  kustomization: Kustomization,
  use: (folder: string) => Promise<T>,
  files: ReadonlyMap<string, string> = new Map(),
): Promise<T> {
  await mkdir(SCRATCH, { recursive: true });
  const folder = await mkdtemp(join(SCRATCH, "overlay-"));
  try {
    for (const [name, text] of files) await writeFile(join(folder, name), text);
    const near = (paths: readonly string[] = []) =>
      paths.map((path) => (path.startsWith("/") ? relative(folder, path) : path));
    const text = stringify({
      ...kustomization,
      resources: near(kustomization.resources),
      components: near(kustomization.components),
      namespace: NAMESPACE,
    });
    await writeFile(join(folder, "kustomization.yaml"), text);
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** A disk in every zone, of a class, for RabbitMQ: nothing here makes disks when they are asked for. */
export async function makeDisks(plane: ControlPlane, storageClassName: string): Promise<void> {
  for (const zone of ZONES) {
    await plane.api("POST", "/api/v1/persistentvolumes", {
      apiVersion: "v1",
      kind: "PersistentVolume",
      metadata: { generateName: `${zone}-` },
      spec: {
        storageClassName,
        capacity: { storage: "10Gi" },
        accessModes: ["ReadWriteOnce"],
        local: { path: "/disk" },
        nodeAffinity: {
          required: {
            nodeSelectorTerms: [{ matchExpressions: [{ key: ZONE, operator: "In", values: [zone] }] }],
          },
        },
      },
    });
  }
}
