import type { ServiceBroker } from "moleculer";

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const SIZES = [1, 2, 4, 8, 16, 32, 64, 128];

/** Every metric of ours: dots inside Moleculer, underscores on the wire. Times in seconds, sizes in items or bytes. */
export const METRICS = {
  "http.requests.total": { labels: ["route", "status"], about: "HTTP requests by route and status" },
  "http.request.seconds": {
    labels: ["route"],
    buckets: SECONDS,
    about: "from the request's head to its answer",
  },
  "dispatcher.decode.seconds": { labels: [], buckets: SECONDS, about: "one image decoded and resized" },
  "inference.requests.total": {
    labels: ["model", "outcome"],
    about: "items by model and outcome: ok or error code",
  },
  "inference.queue.seconds": { labels: ["model"], buckets: SECONDS, about: "an item's wait for its batch" },
  "inference.compute.seconds": { labels: ["model"], buckets: SECONDS, about: "one batch in the engine" },
  "inference.batch.size": { labels: ["model"], buckets: SIZES, about: "items in a batch" },
  "inference.batches.total": { labels: ["model", "reason"], about: "batches by why they left the queue" },
  "inference.queued": { labels: ["model"], gauge: true, about: "items that wait" },
  "inference.running": { labels: ["model"], gauge: true, about: "items in the engine" },
  "inference.model.version": { labels: ["model", "name"], gauge: true, about: "the version that answers" },
  "engine.restarts.total": { labels: ["model"], about: "engine threads replaced after a death" },
  "cache.requests.total": { labels: ["result"], about: "response cache: hit, miss, shared, error or bypass" },
  "transport.requests.total": {
    labels: ["event", "action"],
    about: "requests stolen, redelivered, resent, expired, duplicate or dead-lettered",
  },
  "retry.attempts.total": { labels: ["action"], about: "calls sent again after a retryable error" },
  "node.cpu.ratio": { labels: [], gauge: true, about: "CPU used, of the limit" },
  "node.memory.ratio": { labels: [], gauge: true, about: "memory used, of the limit" },
  "event.loop.delay.seconds": {
    labels: ["quantile"],
    gauge: true,
    about: "event-loop delay since the last scrape",
  },
} as const satisfies Record<
  string,
  { labels: readonly string[]; buckets?: number[]; gauge?: true; about: string }
>;

export type MetricName = keyof typeof METRICS;
type Labels = Readonly<Record<string, string>>;

/** Declares the metrics on a broker. A broker with metrics off ignores all of this. */
export function registerMetrics(broker: ServiceBroker): void {
  for (const [name, metric] of Object.entries(METRICS)) {
    const common = { name, description: metric.about, labelNames: [...metric.labels] };
    if ("buckets" in metric) {
      // Without `quantiles: []` Moleculer's reporter leaves out _sum and _count.
      broker.metrics.register({ ...common, type: "histogram", buckets: metric.buckets, quantiles: [] });
    } else if ("gauge" in metric) broker.metrics.register({ ...common, type: "gauge" });
    else broker.metrics.register({ ...common, type: "counter" });
  }
}

export function count(broker: ServiceBroker, name: MetricName, labels: Labels = {}, by = 1): void {
  broker.metrics.increment(name, labels, by);
}

export function observe(broker: ServiceBroker, name: MetricName, value: number, labels: Labels = {}): void {
  broker.metrics.observe(name, value, labels);
}

export function gauge(broker: ServiceBroker, name: MetricName, value: number, labels: Labels = {}): void {
  broker.metrics.set(name, value, labels);
}
