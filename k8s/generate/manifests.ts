import type { Model } from "@kubernetes-models/base";
import { Deployment } from "kubernetes-models/apps/v1/Deployment";
import { NetworkPolicy } from "kubernetes-models/networking.k8s.io/v1/NetworkPolicy";
import type { INetworkPolicyEgressRule } from "kubernetes-models/networking.k8s.io/v1/NetworkPolicyEgressRule";
import type { INetworkPolicyPeer } from "kubernetes-models/networking.k8s.io/v1/NetworkPolicyPeer";
import type { INetworkPolicyPort } from "kubernetes-models/networking.k8s.io/v1/NetworkPolicyPort";
import { PodDisruptionBudget } from "kubernetes-models/policy/v1/PodDisruptionBudget";
import type { IEnvVar } from "kubernetes-models/v1/EnvVar";
import type { IPodSpec } from "kubernetes-models/v1/PodSpec";
import type { IProbe } from "kubernetes-models/v1/Probe";
import { Service } from "kubernetes-models/v1/Service";
import { ServiceAccount } from "kubernetes-models/v1/ServiceAccount";
import type { Role } from "../../lib/deploy.ts";
import { autoscaler, scaledObject } from "./autoscaler.ts";
import type { Needs } from "./needs.ts";

const ADMIN_PORT = 9100;
const HTTP_PORT = 3000;

/** The user `node` of the image. Kubernetes can tell that it is not root only from a number. */
const USER = 1000;

/** A load balancer hears within this time that a pod leaves; until then the pod answers as before. */
const LEAVE_SECONDS = 10;

/** After the drain, for the process to end by itself. */
const END_SECONDS = 5;

/** A node that is silent for so long (after the cluster's own 40 s or so) has its pods replaced. */
const NODE_LOST_SECONDS = 30;

/** Where Prometheus lives. */
const MONITORING_NAMESPACE = "monitoring";

const NAME = "app.kubernetes.io/name";
const PART_OF = { "app.kubernetes.io/part-of": "dl-lambda" };

/** Roles that read or write Redis: answers, and the rates of clients. */
const WITH_REDIS: readonly Role[] = ["gateway", "dispatcher"];

/** Everything a service has in the cluster, each object valid by Kubernetes' own schema. */
export function manifests(needs: Needs, image: string): readonly Model<unknown>[] {
  const { name, role } = needs;
  const metadata = { name, labels: { ...labelsOf(name), "app.kubernetes.io/component": role } };
  const objects = [
    new ServiceAccount({ metadata, automountServiceAccountToken: false }),
    deployment(needs, metadata, image),
    ...(role === "gateway" ? [service(name, metadata)] : []),
    autoscaler(needs, metadata),
    budget(name, metadata),
    networkPolicy(needs, metadata),
  ];
  for (const object of objects) object.validate();
  return objects;
}

/** What takes the place of a service's autoscaler where KEDA is, valid by KEDA's own schema. */
export function kedaManifest(needs: Needs): Model<unknown> {
  const { name, role } = needs;
  const object = scaledObject(needs, {
    name,
    labels: { ...labelsOf(name), "app.kubernetes.io/component": role },
  });
  object.validate();
  return object;
}

function labelsOf(name: string) {
  return { [NAME]: name, ...PART_OF };
}

/** Without `replicas`: they are the autoscaler's, and an `apply` must not reset them. */
function deployment(needs: Needs, metadata: Labelled, image: string): Deployment {
  return new Deployment({
    metadata,
    spec: {
      selector: { matchLabels: labelsOf(needs.name) },
      strategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: 0, maxSurge: "25%" } },
      template: { metadata: { labels: metadata.labels }, spec: pod(needs, image) },
    },
  });
}

interface Labelled {
  readonly name: string;
  readonly labels: Record<string, string>;
}

function pod(needs: Needs, image: string): IPodSpec {
  const { name, role, cpu, memoryMiB, drainGraceMs } = needs;
  const leaveSeconds = role === "gateway" ? LEAVE_SECONDS : 0;
  const resources = { cpu: quantity(cpu), memory: `${memoryMiB}Mi` };
  return {
    serviceAccountName: name,
    automountServiceAccountToken: false,
    // Else every Service of the namespace shows as variables.
    enableServiceLinks: false,
    terminationGracePeriodSeconds: leaveSeconds + Math.ceil(drainGraceMs / 1000) + END_SECONDS,
    securityContext: {
      runAsNonRoot: true,
      runAsUser: USER,
      runAsGroup: USER,
      seccompProfile: { type: "RuntimeDefault" },
    },
    // Over zones before over nodes. Where one zone is full a pod in another is better than none.
    topologySpreadConstraints: ["topology.kubernetes.io/zone", "kubernetes.io/hostname"].map(
      (topologyKey) => ({
        topologyKey,
        maxSkew: 1,
        whenUnsatisfiable: "ScheduleAnyway",
        labelSelector: { matchLabels: labelsOf(name) },
        // Each version of a rolling update by itself.
        matchLabelKeys: ["pod-template-hash"],
      }),
    ),
    tolerations: ["not-ready", "unreachable"].map((condition) => ({
      key: `node.kubernetes.io/${condition}`,
      operator: "Exists",
      effect: "NoExecute",
      tolerationSeconds: NODE_LOST_SECONDS,
    })),
    containers: [
      {
        name,
        image,
        envFrom: [{ configMapRef: { name: "settings" } }],
        env: environment(needs),
        ports: [
          ...(role === "gateway" ? [{ name: "http", containerPort: HTTP_PORT }] : []),
          { name: "admin", containerPort: ADMIN_PORT },
        ],
        resources: { requests: resources, limits: resources },
        securityContext: {
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ["ALL"] },
        },
        // The process listens before it loads its model or finds RabbitMQ: it is alive while it waits for either.
        startupProbe: probe("live", { periodSeconds: 1, failureThreshold: 60 }),
        readinessProbe: probe("ready", { periodSeconds: 2, failureThreshold: 2 }),
        livenessProbe: probe("live", { periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6 }),
        // What arrives over RabbitMQ needs no such wait: a drain stops it at its source.
        ...(leaveSeconds > 0 ? { lifecycle: { preStop: { sleep: { seconds: leaveSeconds } } } } : {}),
      },
    ],
  };
}

function probe(question: "live" | "ready", times: Partial<IProbe>): IProbe {
  return { httpGet: { path: `/health/${question}`, port: "admin" }, timeoutSeconds: 2, ...times };
}

/** What the manifest itself sets, then what the service's file does, which may also fix the threads. */
function environment({ name, role, env, drainGraceMs }: Needs): IEnvVar[] {
  const ownThreads = role !== "model" || "ENGINE_THREADS" in env;
  return [
    { name: "SERVICES", value: name },
    { name: "NODE_ID", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
    { name: "ADMIN_PORT", value: String(ADMIN_PORT) },
    ...(role === "gateway"
      ? [
          { name: "PORT", value: String(HTTP_PORT) },
          secret("ADMIN_KEYS", "admin", "keys", { optional: true }),
        ]
      : []),
    secret("RABBITMQ_USERNAME", "rabbitmq", "username"),
    secret("RABBITMQ_PASSWORD", "rabbitmq", "password"),
    { name: "TRANSPORTER", value: "amqp://$(RABBITMQ_USERNAME):$(RABBITMQ_PASSWORD)@rabbitmq:5672" },
    ...(WITH_REDIS.includes(role)
      ? [
          secret("REDIS_PASSWORD", "redis", "password"),
          { name: "REDIS_URL", value: "redis://:$(REDIS_PASSWORD)@redis:6379" },
        ]
      : []),
    ...(ownThreads ? [] : [limitOf(name, "ENGINE_THREADS", "limits.cpu")]),
    // The pod's grace is made from it, so the settings that all pods share must not change it.
    ...Object.entries({ ...env, DRAIN_GRACE_MS: String(drainGraceMs) }).map(([variable, value]) => ({
      name: variable,
      value,
    })),
  ];
}

/** Whatever an overlay makes of the limit, the variable follows. */
function limitOf(containerName: string, variable: string, resource: string): IEnvVar {
  return { name: variable, valueFrom: { resourceFieldRef: { containerName, resource } } };
}

/** A pod whose secret is missing does not start, and its events name the secret; one that is optional is left out. */
function secret(variable: string, name: string, key: string, optional: { optional?: true } = {}): IEnvVar {
  return { name: variable, valueFrom: { secretKeyRef: { name, key, ...optional } } };
}

function service(name: string, metadata: Labelled): Service {
  return new Service({
    metadata,
    spec: {
      type: "ClusterIP",
      selector: labelsOf(name),
      ports: [{ name: "http", port: 80, targetPort: "http" }],
    },
  });
}

/** One at a time; a pod that is not ready anyway must not keep a node from being emptied. */
function budget(name: string, metadata: Labelled): PodDisruptionBudget {
  return new PodDisruptionBudget({
    metadata,
    spec: {
      selector: { matchLabels: labelsOf(name) },
      maxUnavailable: 1,
      unhealthyPodEvictionPolicy: "AlwaysAllow",
    },
  });
}

/** In: HTTP to a gateway, metrics to Prometheus (a node's own probes are always let in). Out: names, RabbitMQ, Redis. */
function networkPolicy({ name, role }: Needs, metadata: Labelled): NetworkPolicy {
  const monitoring: INetworkPolicyPeer = {
    namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": MONITORING_NAMESPACE } },
  };
  const to = (app: string, port: number): INetworkPolicyEgressRule => ({
    to: [{ podSelector: { matchLabels: labelsOf(app) } }],
    ports: [tcp(port)],
  });
  return new NetworkPolicy({
    metadata,
    spec: {
      podSelector: { matchLabels: labelsOf(name) },
      policyTypes: ["Ingress", "Egress"],
      ingress: [
        ...(role === "gateway" ? [{ ports: [tcp("http")] }] : []),
        { from: [monitoring], ports: [tcp("admin")] },
      ],
      egress: [
        // Anywhere: a cluster's resolver may be pods, or an address of the node.
        { ports: [{ protocol: "UDP", port: 53 }, tcp(53)] },
        to("rabbitmq", 5672),
        ...(WITH_REDIS.includes(role) ? [to("redis", 6379)] : []),
      ],
    },
  });
}

function tcp(port: number | string): INetworkPolicyPort {
  return { protocol: "TCP", port };
}

/** Cores as Kubernetes writes them: "2", "500m". */
function quantity(cores: number): string {
  return Number.isInteger(cores) ? String(cores) : `${Math.round(cores * 1000)}m`;
}
