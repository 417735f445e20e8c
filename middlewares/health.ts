import { createServer, type Server, type ServerResponse } from "node:http";
import type { Middleware, ServiceBroker } from "moleculer";
import { healthOf, healthResponse } from "../lib/telemetry/health.ts";
import { METRICS_CONTENT_TYPE, metricsText } from "../lib/telemetry/prometheus.ts";

export interface HealthOptions {
  /**
   * Port of the admin server, for processes without a gateway. 0: none.
   * @default 0
   */
  readonly port?: number;
  /**
   * Address it listens on. A kubelet asks at the pod's address, not at loopback.
   * @default "0.0.0.0"
   */
  readonly host?: string;
}

/**
 * Keeps the broker's health and serves it, with the metrics, on an admin port: `GET /health/live`,
 * `/health/ready` and `/metrics`. It answers from before the models warm up until all has stopped.
 */
export function HealthChecks({ port = 0, host = "0.0.0.0" }: HealthOptions = {}): Middleware {
  const servers = new WeakMap<ServiceBroker, Server>();
  return {
    name: "HealthChecks",

    async starting(broker) {
      if (port === 0) return;
      servers.set(broker, await listen(broker, port, host));
      broker.logger.info("Admin server listens", { host, port });
    },

    async serviceStarting(service) {
      healthOf(service.broker).serviceStarting(service.fullName);
    },

    async serviceStarted(service) {
      healthOf(service.broker).serviceSettled(service.fullName);
    },

    async serviceStopped(service) {
      healthOf(service.broker).serviceSettled(service.fullName);
    },

    async started(broker) {
      // Moleculer tells the others up to a second later: too late where the node this one replaces is gone by then.
      await broker.registry.discoverer.sendLocalNodeInfo();
      healthOf(broker).ready();
    },

    async stopping(broker) {
      await drain(broker);
    },

    async stopped(broker) {
      healthOf(broker).stop();
      const server = servers.get(broker);
      server?.close();
      server?.closeAllConnections();
    },
  };
}

/**
 * Takes the node out of the balancing: from now on it is not ready, and tells the others so at once rather than with
 * the next heartbeat. What runs goes on. A second call does nothing.
 */
export async function drain(broker: ServiceBroker): Promise<void> {
  if (!healthOf(broker).drain()) return;
  if (broker.transit?.connected) await broker.registry.discoverer.sendHeartbeat();
}

function listen(broker: ServiceBroker, port: number, host: string): Promise<Server> {
  const server = createServer((request, response) => answer(broker, request, response));
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => resolve(server));
  });
}

/** The admin server's request handler. */
export function answer(
  broker: ServiceBroker,
  { method = "GET", url = "/" }: { readonly method?: string | undefined; readonly url?: string | undefined },
  response: ServerResponse,
): void {
  if (method !== "GET" && method !== "HEAD") {
    send(response, 405, "text/plain", "", { Allow: "GET, HEAD" });
    return;
  }
  switch (url.split("?", 1)[0]) {
    case "/health/live":
    case "/health/ready": {
      const { status, body } = healthResponse(broker, url.startsWith("/health/live") ? "live" : "ready");
      send(response, status, "application/json", JSON.stringify(body));
      return;
    }
    case "/metrics":
      metricsText(broker).then(
        (text) => send(response, 200, METRICS_CONTENT_TYPE, text),
        (error: unknown) => {
          broker.logger.error("The metrics could not be read", error);
          send(response, 500, "text/plain", "");
        },
      );
      return;
    default:
      send(response, 404, "text/plain", "");
  }
}

function send(
  response: ServerResponse,
  status: number,
  type: string,
  body: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  response.writeHead(status, {
    "Content-Type": type,
    "Content-Length": Buffer.byteLength(body),
    "Cache-Control": "no-store",
    ...headers,
  });
  // Node leaves the body out of the answer to HEAD by itself.
  response.end(body);
}
