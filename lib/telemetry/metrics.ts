import type { ServiceBroker } from "moleculer";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { perBroker } from "../per-broker.ts";

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const SIZES = [1, 2, 4, 8, 16, 32, 64, 128];

/** Every metric of ours: dots here, underscores on the wire. Times in seconds, sizes in items or bytes. */
export const METRICS = {
  "http.requests.total": {
    labels: ["route", "status"],
    about: "HTTP requests by route and status, also those that found no route",
  },
  "http.request.seconds": {
    labels: ["route"],
    buckets: SECONDS,
    about: "from the request's head to its answer",
  },
  "dispatcher.decode.seconds": { labels: [], buckets: SECONDS, about: "one image decoded and resized" },
  "decoder.deaths.total": {
    labels: ["reason"],
    about: "decoders that ended under an image and were replaced: over their memory or time, or crash",
  },
  "inference.requests.total": {
    labels: ["model", "outcome"],
    about: "items by model and outcome: ok or error code",
  },
  "inference.queue.seconds": { labels: ["model"], buckets: SECONDS, about: "an item's wait for its batch" },
  "inference.compute.seconds": {
    labels: ["network", "version"],
    buckets: SECONDS,
    about: "one batch in the engine; services that ask the same network share it",
  },
  "inference.batch.size": { labels: ["network", "version"], buckets: SIZES, about: "items in a batch" },
  "inference.batches.total": {
    labels: ["network", "version", "reason", "outcome"],
    about: "batches by why they left the queue and how they ended: ok or error code",
  },
  "inference.queued": { labels: ["network", "version"], gauge: true, about: "items that wait" },
  "inference.running": { labels: ["network", "version"], gauge: true, about: "items in the engine" },
  "inference.concurrency": {
    labels: ["network", "version"],
    gauge: true,
    about: "batches that the process computes at once",
  },
  "inference.model.version": { labels: ["model", "name"], gauge: true, about: "the version that answers" },
  "model.versions.total": {
    labels: ["model", "event"],
    about:
      "versions by what became of them: ready, proven, failed, taken back, closed; unreadable: the repository",
  },
  "engine.deaths.total": { labels: ["network", "version"], about: "engines that died and were replaced" },
  "cache.requests.total": { labels: ["result"], about: "response cache: hit, miss, shared, error or bypass" },
  "transport.requests.total": {
    labels: ["event", "action"],
    about: "requests stolen, redelivered, resent, expired, duplicate or dead-lettered",
  },
  "retry.attempts.total": { labels: ["action"], about: "calls sent again after a retryable error" },
  "node.cpu.ratio": { labels: [], gauge: true, about: "CPU used, of the limit" },
  "node.memory.ratio": { labels: [], gauge: true, about: "memory used, of the limit" },
  "node.info": {
    labels: ["node", "namespace", "version"],
    gauge: true,
    about: "1 for the node that answers: its ID, its cluster, and the release it runs",
  },
} as const satisfies Record<
  string,
  { labels: readonly string[]; buckets?: number[]; gauge?: true; about: string }
>;

type Metrics = typeof METRICS;
export type MetricName = keyof Metrics;
type GaugeName = { [N in MetricName]: Metrics[N] extends { gauge: true } ? N : never }[MetricName];
type HistogramName = { [N in MetricName]: Metrics[N] extends { buckets: number[] } ? N : never }[MetricName];
type CounterName = Exclude<MetricName, GaugeName | HistogramName>;
type Labels<N extends MetricName> = Readonly<Record<Metrics[N]["labels"][number], string>>;
type AnyLabels = Readonly<Record<string, string>>;

/** A value that is asked for when Prometheus asks. */
interface Live {
  readonly labels: AnyLabels;
  readonly read: () => number;
}

/** The metrics of one broker: two in one process, as tests have them, do not mix. */
class Instruments {
  readonly registry = new Registry();
  readonly #counters = new Map<string, Counter>();
  readonly #histograms = new Map<string, Histogram>();
  readonly #gauges = new Map<string, Gauge>();
  readonly #live = new Map<string, Set<Live>>();

  constructor() {
    for (const [name, metric] of Object.entries(METRICS)) {
      const common = {
        name: wireName(name),
        help: metric.about,
        labelNames: [...metric.labels],
        registers: [this.registry],
      };
      if ("buckets" in metric) {
        this.#histograms.set(name, new Histogram({ ...common, buckets: metric.buckets }));
      } else if ("gauge" in metric) {
        const live = new Set<Live>();
        this.#live.set(name, live);
        const collect = (gauge: Gauge) => {
          for (const { labels, read } of live) gauge.set(labels, read());
        };
        this.#gauges.set(name, new Gauge({ ...common, collect: (): void => collect(this.gauge(name)) }));
      } else this.#counters.set(name, new Counter(common));
    }
  }

  counter = (name: string): Counter => known(this.#counters, name);
  histogram = (name: string): Histogram => known(this.#histograms, name);
  gauge = (name: string): Gauge => known(this.#gauges, name);
  live = (name: string): Set<Live> => known(this.#live, name);
}

function known<T>(instruments: ReadonlyMap<string, T>, name: string): T {
  const instrument = instruments.get(name);
  if (!instrument) throw new TypeError(`Expected a metric of the table but received "${name}"`);
  return instrument;
}

const instrumentsOf = perBroker(() => new Instruments());

/** The broker's metrics, to be written out. */
export function registryOf(broker: ServiceBroker): Registry {
  return instrumentsOf(broker).registry;
}

/** As Prometheus knows the metric: `http.requests.total` is `http_requests_total`. */
export function wireName(name: string): string {
  return name.replaceAll(".", "_");
}

export function count<N extends CounterName>(
  broker: ServiceBroker,
  name: N,
  labels: Labels<N>,
  by = 1,
): void {
  instrumentsOf(broker).counter(name).inc(labels, by);
}

export function observe<N extends HistogramName>(
  broker: ServiceBroker,
  name: N,
  value: number,
  labels: Labels<N> = {} as Labels<N>,
): void {
  instrumentsOf(broker).histogram(name).observe(labels, value);
}

export function gauge<N extends GaugeName>(
  broker: ServiceBroker,
  name: N,
  value: number,
  labels: Labels<N> = {} as Labels<N>,
): void {
  instrumentsOf(broker).gauge(name).set(labels, value);
}

/**
 * A gauge that is read at each scrape, so that it tells the truth also while nothing else moves: a queue behind an
 * engine that hangs.
 *
 * @param read must not throw
 * @returns takes the gauge away again: what is gone has no last value
 */
export function liveGauge<N extends GaugeName>(
  broker: ServiceBroker,
  name: N,
  labels: Labels<N>,
  read: () => number,
): () => void {
  const own = instrumentsOf(broker);
  const live: Live = { labels, read };
  own.live(name).add(live);
  return () => {
    if (own.live(name).delete(live)) own.gauge(name).remove(labels);
  };
}
