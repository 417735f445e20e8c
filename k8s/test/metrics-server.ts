import { once } from "node:events";
import { readFile } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { ControlPlane, KubeObject } from "./control-plane.ts";

/** The namespace whose pods are measured. */
const PODS = "/api/v1/namespaces/dl-lambda/pods";
const DEPLOYMENTS = "/apis/apps/v1/namespaces/dl-lambda/deployments";

const METRICS = "/apis/metrics.k8s.io/v1beta1";
const EXTERNAL = "/apis/external.metrics.k8s.io/v1beta1";

interface Pod extends KubeObject {
  readonly spec: {
    readonly containers: readonly {
      readonly name: string;
      readonly resources: { readonly requests: { readonly cpu: string } };
    }[];
  };
  readonly status: { readonly phase: string };
}

interface Deployment extends KubeObject {
  readonly spec: { readonly replicas: number };
}

/** What the autoscalers are told. A test changes it as it goes on. */
export interface Load {
  /** CPU that every pod of a Deployment uses, of its request: 0.5 is 50 %. */
  readonly cpu: Map<string, number>;
  /** How many pods of a Deployment a policy wants; undefined: there is no value. */
  wanted(deployment: string, policy: string): Promise<number | undefined>;
}

export interface MetricsServer {
  /** Serves `GET /metrics` for Prometheus over TLS, too: what kube-state-metrics and the pods themselves would tell. */
  readonly port: number;
  stop(): Promise<void>;
}

/**
 * The resource and external metrics APIs over `load`, registered with the API server as metrics-server and a
 * Prometheus adapter are.
 */
export async function serveMetrics(plane: ControlPlane, load: Load): Promise<MetricsServer> {
  const { cert, key } = plane.certificate;
  const server = createServer({ cert: await readFile(cert), key: await readFile(key) }, (req, res) => {
    answer(plane, load, req)
      .then((body) => send(res, body ? 200 : 404, body ?? {}))
      .catch((error: Error) => send(res, 500, { message: error.message }));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;

  await plane.api("POST", "/api/v1/namespaces/kube-system/services", {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "metrics" },
    spec: { type: "ExternalName", externalName: "localhost" },
  });
  for (const group of ["metrics.k8s.io", "external.metrics.k8s.io"]) {
    await plane.api("POST", "/apis/apiregistration.k8s.io/v1/apiservices", {
      apiVersion: "apiregistration.k8s.io/v1",
      kind: "APIService",
      metadata: { name: `v1beta1.${group}` },
      spec: {
        group,
        version: "v1beta1",
        service: { namespace: "kube-system", name: "metrics", port },
        insecureSkipTLSVerify: true,
        groupPriorityMinimum: 100,
        versionPriority: 100,
      },
    });
  }
  return {
    port,
    stop: async () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

function send(res: ServerResponse, status: number, body: object | string): void {
  if (typeof body === "string") res.writeHead(status, { "content-type": "text/plain" }).end(body);
  else res.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

async function answer(
  plane: ControlPlane,
  load: Load,
  req: IncomingMessage,
): Promise<object | string | undefined> {
  const url = new URL(req.url ?? "/", "https://localhost");
  const selector = url.searchParams.get("labelSelector") ?? "";
  switch (url.pathname) {
    case "/metrics":
      return exposition(plane, load);
    case METRICS:
      return resources("metrics.k8s.io/v1beta1", "pods", "PodMetrics");
    case EXTERNAL:
      return resources(
        "external.metrics.k8s.io/v1beta1",
        "dl_lambda_wanted_replicas",
        "ExternalMetricValueList",
      );
  }
  const [, namespace, name] = /\/namespaces\/([^/]+)\/([^/]+)$/.exec(url.pathname) ?? [];
  if (!namespace) return undefined;
  if (url.pathname.startsWith(METRICS)) return podMetrics(plane, load, namespace, selector);
  return url.pathname.startsWith(EXTERNAL) ? externalMetric(load, String(name), selector) : undefined;
}

function resources(groupVersion: string, name: string, kind: string) {
  return {
    kind: "APIResourceList",
    apiVersion: "v1",
    groupVersion,
    resources: [{ name, singularName: "", namespaced: true, kind, verbs: ["get", "list"] }],
  };
}

async function runningPods(plane: ControlPlane, path: string): Promise<readonly Pod[]> {
  return (await plane.list<Pod>(path)).filter(({ status }) => status.phase === "Running");
}

/** In Prometheus' text format. */
async function exposition(plane: ControlPlane, load: Load): Promise<string> {
  const deployments = await plane.list<Deployment>(DEPLOYMENTS);
  const pods = await runningPods(plane, PODS);
  const lines = [
    ...deployments.map(
      ({ metadata: { name }, spec }) =>
        `kube_deployment_spec_replicas{namespace="dl-lambda",deployment="${name}"} ${spec.replicas}`,
    ),
    ...pods.flatMap(({ metadata, spec }) =>
      spec.containers.map(
        ({ name }) =>
          `node_cpu_ratio{namespace="dl-lambda",container="${name}",pod="${metadata.name}"} ${load.cpu.get(name)}`,
      ),
    ),
  ];
  return `${lines.join("\n")}\n`;
}

async function podMetrics(plane: ControlPlane, load: Load, namespace: string, selector: string) {
  const query = `labelSelector=${encodeURIComponent(selector)}`;
  const pods = await runningPods(plane, `/api/v1/namespaces/${namespace}/pods?${query}`);
  return {
    kind: "PodMetricsList",
    apiVersion: "metrics.k8s.io/v1beta1",
    metadata: {},
    items: pods.map(({ metadata, spec }) => ({
      metadata: { name: metadata.name, namespace, labels: metadata.labels },
      timestamp: new Date().toISOString(),
      window: "1s",
      containers: spec.containers.map(({ name, resources: { requests } }) => ({
        name,
        usage: {
          cpu: `${Math.round(cores(requests.cpu) * (load.cpu.get(name) ?? 0.5) * 1e9)}n`,
          memory: "1Mi",
        },
      })),
    })),
  };
}

async function externalMetric(load: Load, metricName: string, selector: string) {
  const labels = Object.fromEntries(selector.split(",").map((pair) => pair.split("=")));
  const value = await load.wanted(String(labels["deployment"]), String(labels["policy"]));
  return {
    kind: "ExternalMetricValueList",
    apiVersion: "external.metrics.k8s.io/v1beta1",
    metadata: {},
    items:
      value === undefined
        ? []
        : [{ metricName, metricLabels: labels, timestamp: new Date().toISOString(), value: String(value) }],
  };
}

/** "2" or "500m" in cores. */
function cores(quantity: string): number {
  return quantity.endsWith("m") ? Number(quantity.slice(0, -1)) / 1000 : Number(quantity);
}
