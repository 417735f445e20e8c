import type { ServiceBroker } from "moleculer";
import { collectDefaultMetrics, Registry } from "prom-client";
import { registryOf } from "./metrics.ts";

/** Media type of the text format, version 0.0.4. */
export const METRICS_CONTENT_TYPE = Registry.PROMETHEUS_CONTENT_TYPE;

/**
 * Of prom-client's defaults those that are left out: open handles by type say nothing here, and their names break
 * Prometheus' rules (gauges that end in `_total`).
 */
const LEFT_OUT = /^nodejs_active_/;

let ofProcess: Registry | undefined;

/**
 * What common dashboards know of a Node process: `process_cpu_seconds_total`, `process_resident_memory_bytes`,
 * `nodejs_eventloop_lag_seconds`, … The first call begins to measure the event loop and the collector; there is one
 * measurement a process, whatever the number of its brokers.
 */
export function processMetrics(): Registry {
  if (!ofProcess) {
    ofProcess = new Registry();
    collectDefaultMetrics({ register: ofProcess });
    for (const { name } of ofProcess.getMetricsAsArray()) {
      if (LEFT_OUT.test(name)) ofProcess.removeSingleMetric(name);
    }
  }
  return ofProcess;
}

/**
 * The broker's metrics and the process's in Prometheus' text format
 * (https://prometheus.io/docs/instrumenting/exposition_formats/). The values bear no label for their node: who scrapes
 * knows whom, and `node_info` tells the rest.
 */
export async function metricsText(broker: ServiceBroker): Promise<string> {
  const [ours, process] = await Promise.all([registryOf(broker).metrics(), processMetrics().metrics()]);
  return `${ours}\n${process}`;
}

/** For how long a text is handed out again, milliseconds: writing one takes some, and anyone may ask. */
const FRESH_MS = 1000;
const texts = new WeakMap<ServiceBroker, { readonly at: number; readonly text: Promise<string> }>();

/** {@link metricsText} for those who ask over HTTP: at most a second old, and written at most once a second. */
export function scrape(broker: ServiceBroker, now: number = performance.now()): Promise<string> {
  const last = texts.get(broker);
  if (last && now - last.at < FRESH_MS) return last.text;
  const text = metricsText(broker);
  texts.set(broker, { at: now, text });
  return text;
}
