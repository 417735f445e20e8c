import type { IncomingMessage, ServerResponse } from "node:http";
import type { Middleware, ServiceBroker } from "moleculer";
import { ServingError } from "../lib/errors.ts";
import { type Answer, errorAnswer } from "../lib/http/answer.ts";
import { Listener, type ListenerOptions } from "../lib/http/listener.ts";
import { requestIdOf } from "../lib/http/request.ts";
import { send } from "../lib/http/send.ts";
import { healthOf, healthResponse, type Probe } from "../lib/telemetry/health.ts";
import { METRICS_CONTENT_TYPE, scrape } from "../lib/telemetry/prometheus.ts";

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

/** A kubelet and a Prometheus or two ask here, with a head and no body. */
const LISTENER: ListenerOptions = {
  maxHeaderBytes: 16_384,
  bodyTimeoutMs: 10_000,
  writeTimeoutMs: 10_000,
  // Longer than the minute that many scrape at.
  keepAliveTimeoutMs: 65_000,
  maxConnections: 256,
  trustedProxies: [],
};

/**
 * Keeps the broker's health and serves it, with the metrics, on an admin port: `GET /health/live`,
 * `/health/ready` and `/metrics`. It answers from before the models warm up until all has stopped.
 */
export function HealthChecks({ port = 0, host = "0.0.0.0" }: HealthOptions = {}): Middleware {
  const listeners = new WeakMap<ServiceBroker, Listener>();
  return {
    name: "HealthChecks",

    async starting(broker) {
      if (port === 0) return;
      listeners.set(broker, await listen(broker, port, host));
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
      const server = listeners.get(broker)?.server;
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

async function listen(broker: ServiceBroker, port: number, host: string): Promise<Listener> {
  const listener = new Listener(LISTENER, (req, res) => answer(broker, req, res));
  await listener.listen(port, host);
  return listener;
}

/** The admin server's request handler. Never rejects. */
export async function answer(
  broker: ServiceBroker,
  req: IncomingMessage,
  res: ServerResponse,
): Promise<void> {
  const answered = await answerTo(broker, req).catch((error: unknown) => {
    broker.logger.error("A probe or scrape failed", error);
    return errorAnswer(error, requestIdOf(req.headers));
  });
  send(req, res, answered);
}

async function answerTo(
  broker: ServiceBroker,
  { method, url = "/", headers }: IncomingMessage,
): Promise<Answer> {
  if (method !== "GET" && method !== "HEAD") {
    const refused = errorAnswer(
      new ServingError("METHOD_NOT_ALLOWED", "Expected GET or HEAD"),
      requestIdOf(headers),
    );
    return { ...refused, headers: { allow: "GET, HEAD" } };
  }
  switch (url.split("?", 1)[0]) {
    case "/health/live":
      return probe(broker, "live");
    case "/health/ready":
      return probe(broker, "ready");
    case "/metrics":
      return { status: 200, body: await scrape(broker), headers: { "content-type": METRICS_CONTENT_TYPE } };
    default:
      return errorAnswer(
        new ServingError("NOT_FOUND", "There is nothing at this address"),
        requestIdOf(headers),
      );
  }
}

function probe(broker: ServiceBroker, name: Probe): Answer {
  const { status, body } = healthResponse(broker, name);
  return { status, body };
}
