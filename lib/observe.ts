import type { ServiceBroker } from "moleculer";
import type { BatchReport, SettledItem } from "./batcher.ts";
import { errorCode } from "./errors.ts";
import { count, gauge, observe } from "./metrics.ts";

/** Metrics of one batch that has left the engine. */
export function observeBatch(
  broker: ServiceBroker,
  model: string,
  report: BatchReport,
  stats: { readonly queued: number; readonly inFlight: number },
): void {
  observe(broker, "inference.batch.size", report.size, { model });
  observe(broker, "inference.compute.seconds", report.computeMs / 1e3, { model });
  count(broker, "inference.batches.total", { model, reason: report.reason });
  gauge(broker, "inference.queued", stats.queued, { model });
  gauge(broker, "inference.running", stats.inFlight, { model });
}

/** Metrics of the items of one request. */
export function observeItems(
  broker: ServiceBroker,
  model: string,
  items: readonly SettledItem<unknown>[],
): void {
  for (const item of items) {
    count(broker, "inference.requests.total", { model, outcome: item.ok ? "ok" : errorCode(item.error) });
    if (item.ok) observe(broker, "inference.queue.seconds", item.queueMs / 1e3, { model });
  }
}
