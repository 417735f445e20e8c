import { readFileSync } from "node:fs";
import type { Middleware, ServiceBroker } from "moleculer";
import { gauge } from "../lib/telemetry/metrics.ts";
import { processMetrics } from "../lib/telemetry/prometheus.ts";

/** Measures the process from its start on, and says which node it is. */
export function Metrics(): Middleware {
  return {
    name: "Metrics",
    created(broker: ServiceBroker) {
      processMetrics();
      const { nodeID: node, namespace } = broker;
      gauge(broker, "node.info", 1, { node, namespace, version: release() });
    },
  };
}

function release(): string {
  const text = readFileSync(new URL("../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}
