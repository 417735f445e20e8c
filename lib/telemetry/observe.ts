import type { ServiceBroker } from "moleculer";
import type { BatchReport, SettledItem } from "../batching/batcher.ts";
import { errorCode } from "../errors.ts";
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

/** Metrics of the items of one request: of each answer, or of its refusal as a whole. */
export async function observeItems<O>(
  broker: ServiceBroker,
  model: string,
  size: number,
  answers: Promise<SettledItem<O>[]>,
): Promise<SettledItem<O>[]> {
  try {
    for (const item of await answers) {
      count(broker, "inference.requests.total", { model, outcome: item.ok ? "ok" : errorCode(item.error) });
      if (item.ok) observe(broker, "inference.queue.seconds", item.queueMs / 1e3, { model });
    }
  } catch (error) {
    count(broker, "inference.requests.total", { model, outcome: errorCode(error) }, size);
  }
  return answers;
}
