import { METRICS, type MetricName, wireName } from "../lib/telemetry/metrics.ts";
import { type Board, board, type Panel, panel, row, text } from "./grafana.ts";

/**
 * The dashboards. Queries are made from the table of metrics: a metric or label that is not in it does not compile,
 * unit and description come from it, and what no panel shows gets one of its own on the overview.
 *
 * Every target has a label `service`, which Prometheus gives it (prometheus.yml, k8s/components/monitoring).
 */
const used = new Set<MetricName>();

type LabelOf<N extends MetricName> = (typeof METRICS)[N]["labels"][number] | "service" | "instance";

interface Selection<N extends MetricName> {
  readonly by?: readonly LabelOf<N>[];
  /** Label matchers as PromQL writes them. */
  readonly where?: Readonly<Partial<Record<LabelOf<N>, string>>>;
}

function select<N extends MetricName>(name: N, where?: Selection<N>["where"], suffix = ""): string {
  used.add(name);
  const matchers = Object.entries({ service: '=~"$service"', ...where }).map(([label, m]) => `${label}${m}`);
  return `${wireName(name)}${suffix}{${matchers.join(",")}}`;
}

const grouped = (by: readonly string[]) => (by.length > 0 ? ` by (${by.join(", ")})` : "");
const legendOf = (by: readonly string[]) => by.map((label) => `{{${label}}}`).join(" ");

/** Per second. */
function rate<N extends MetricName>(name: N, { by = [], where }: Selection<N>, suffix = "") {
  return {
    expr: `sum${grouped(by)} (rate(${select(name, where, suffix)}[$__rate_interval]))`,
    legend: legendOf(by) || METRICS[name].about,
  };
}

/** Quantiles of a histogram. */
function quantiles<N extends MetricName>(name: N, { by = [], where }: Selection<N>, of = [0.5, 0.99]) {
  return of.map((q) => ({
    expr: `histogram_quantile(${q}, sum${grouped([...by, "le"])} (rate(${select(name, where, "_bucket")}[$__rate_interval])))`,
    legend: `${legendOf(by)} p${q * 100}`.trim(),
  }));
}

/** Mean of a histogram. */
function mean<N extends MetricName>(name: N, selection: Selection<N>) {
  const { expr: sum } = rate(name, selection, "_sum");
  const { expr: count, legend } = rate(name, selection, "_count");
  return { expr: `${sum} / ${count}`, legend };
}

function gauge<N extends MetricName>(
  fold: "sum" | "avg" | "max" | "count",
  name: N,
  { by = [], where }: Selection<N>,
) {
  return { expr: `${fold}${grouped(by)} (${select(name, where)})`, legend: legendOf(by) || fold };
}

const API = { route: '=~"/api/.*"' } as const;
const NETWORK = { network: '=~"$network"' } as const;
const MODEL = { model: '=~"$model"' } as const;

/** A metric of the table for which no board has a panel. */
function leftOver(name: MetricName): Panel {
  const metric = METRICS[name];
  const by = metric.labels as readonly never[];
  if ("buckets" in metric) return panel(wireName(name), unitOf(name), quantiles(name, { by }), metric.about);
  if ("gauge" in metric)
    return panel(wireName(name), unitOf(name), [gauge("avg", name, { by })], metric.about);
  return panel(wireName(name), "reqps", [rate(name, { by })], metric.about);
}

/** Grafana's name for the unit that a metric's name ends in. */
function unitOf(name: MetricName): string {
  if (name.endsWith(".seconds")) return "s";
  if (name.endsWith(".ratio")) return "percentunit";
  if (name.endsWith(".total")) return "cps";
  return "short";
}

const foreign = (expr: string, legend: string) => ({ expr, legend });

const overviewPanels: readonly Panel[] = [
  row("Requests"),
  panel("Requests by status", "reqps", [rate("http.requests.total", { by: ["status"], where: API })]),
  panel("Latency", "s", quantiles("http.request.seconds", { where: API })),
  panel("Share that failed (5xx)", "percentunit", [foreign("dl:http_errors:ratio5m", "5 minutes")]),
  panel("Requests by route", "reqps", [rate("http.requests.total", { by: ["route"] })]),
  row("Models"),
  panel("Items by model", "reqps", [rate("inference.requests.total", { by: ["model"] })]),
  panel("Items that failed", "reqps", [
    rate("inference.requests.total", { by: ["model", "outcome"], where: { outcome: '!="ok"' } }),
  ]),
  panel("Wait for a batch", "s", quantiles("inference.queue.seconds", { by: ["model"] })),
  panel("Compute of a batch", "s", quantiles("inference.compute.seconds", { by: ["network"] })),
  panel("Items that wait", "short", [gauge("sum", "inference.queued", { by: ["network"] })]),
  panel("Cache", "reqps", [rate("cache.requests.total", { by: ["result"] })]),
  row("Processes"),
  panel("Replicas that answer", "short", [
    foreign('sum by (service) (up{service=~"$service"})', "{{service}}"),
  ]),
  panel("CPU, of the limit", "percentunit", [gauge("avg", "node.cpu.ratio", { by: ["service"] })]),
  panel("Memory, of the limit", "percentunit", [gauge("max", "node.memory.ratio", { by: ["service"] })]),
  panel("Event loop lag, p99", "s", [
    foreign('max by (service) (nodejs_eventloop_lag_p99_seconds{service=~"$service"})', "{{service}}"),
  ]),
  panel("Resident memory of main processes", "bytes", [
    foreign('max by (service) (process_resident_memory_bytes{service=~"$service"})', "{{service}}"),
  ]),
  panel("Releases", "short", [gauge("count", "node.info", { by: ["version", "service"] })]),
];

const modelPanels: readonly Panel[] = [
  row("What was asked"),
  panel("Items by outcome", "reqps", [rate("inference.requests.total", { by: ["outcome"], where: MODEL })]),
  panel("Version that answers", "short", [
    gauge("max", "inference.model.version", { by: ["model", "name"], where: MODEL }),
  ]),
  panel("Wait for a batch", "s", quantiles("inference.queue.seconds", { where: MODEL }, [0.5, 0.9, 0.99])),
  row("What was computed"),
  panel(
    "Compute of a batch",
    "s",
    quantiles("inference.compute.seconds", { where: NETWORK }, [0.5, 0.9, 0.99]),
  ),
  panel("Items in a batch, mean", "short", [mean("inference.batch.size", { where: NETWORK })]),
  panel("Batches by reason", "reqps", [rate("inference.batches.total", { by: ["reason"], where: NETWORK })]),
  panel("Batches by outcome", "reqps", [
    rate("inference.batches.total", { by: ["outcome"], where: NETWORK }),
  ]),
  panel("Items that wait, and run", "short", [
    { ...gauge("sum", "inference.queued", { where: NETWORK }), legend: "wait" },
    { ...gauge("sum", "inference.running", { where: NETWORK }), legend: "run" },
  ]),
  panel("Engines that died", "short", [
    foreign(
      `sum by (network) (increase(${select("engine.deaths.total", NETWORK)}[$__rate_interval]))`,
      "{{network}}",
    ),
  ]),
];

const rabbitPanels: readonly Panel[] = [
  row("Our side"),
  panel("What became of requests", "reqps", [rate("transport.requests.total", { by: ["event"] })]),
  panel("By action", "reqps", [rate("transport.requests.total", { by: ["action", "event"] })]),
  panel("Calls sent again", "reqps", [rate("retry.attempts.total", { by: ["action"] })]),
  row("RabbitMQ"),
  panel("Messages that wait", "short", [
    foreign("sum by (instance) (rabbitmq_queue_messages_ready)", "{{instance}} ready"),
    foreign("sum by (instance) (rabbitmq_queue_messages_unacked)", "{{instance}} taken, not done"),
  ]),
  panel("Messages", "reqps", [
    foreign("sum (rate(rabbitmq_global_messages_received_total[$__rate_interval]))", "in"),
    foreign("sum (rate(rabbitmq_global_messages_delivered_total[$__rate_interval]))", "out"),
  ]),
  panel("Connections, channels, consumers, queues", "short", [
    foreign("sum (rabbitmq_connections)", "connections"),
    foreign("sum (rabbitmq_channels)", "channels"),
    foreign("sum (rabbitmq_consumers)", "consumers"),
    foreign("sum (rabbitmq_queues)", "queues"),
  ]),
  panel("Memory, of its high-water mark", "percentunit", [
    foreign(
      "max by (instance) (rabbitmq_process_resident_memory_bytes / rabbitmq_resident_memory_limit_bytes)",
      "{{instance}}",
    ),
  ]),
  panel("Free disk", "bytes", [
    foreign("min by (instance) (rabbitmq_disk_space_available_bytes)", "{{instance}}"),
  ]),
  panel("Alarms", "short", [
    foreign("max (rabbitmq_alarms_memory_used_watermark)", "memory"),
    foreign("max (rabbitmq_alarms_free_disk_space_watermark)", "disk"),
  ]),
];

const autoscalingPanels: readonly Panel[] = [
  row("Late signal: CPU (one more above 80 %, one fewer below 20 %)"),
  panel("CPU over a minute, and over ten", "percentunit", [
    foreign('dl:node_cpu_ratio:avg1m{service=~"$service"}', "{{service}} 1 min"),
    foreign('dl:node_cpu_ratio:avg10m{service=~"$service"}', "{{service}} 10 min"),
  ]),
  row("Early signal: the queue"),
  panel("Wait for a batch, p90", "s", quantiles("inference.queue.seconds", { by: ["model"] }, [0.9])),
  panel("Items that wait, by replica", "short", [
    gauge("max", "inference.queued", { by: ["service", "instance"] }),
  ]),
  panel("Items a second, by model", "reqps", [rate("inference.requests.total", { by: ["model"] })]),
  panel("Refused for want of room", "reqps", [
    rate("inference.requests.total", { by: ["model"], where: { outcome: '="QUEUE_FULL"' } }),
  ]),
  row("What came of it"),
  panel("Replicas that answer", "short", [
    foreign('sum by (service) (up{service=~"$service"})', "{{service}}"),
  ]),
  panel("Replicas wanted, by policy", "short", [
    foreign(
      'max by (deployment, policy) (dl_lambda_wanted_replicas{deployment=~"$service"})',
      "{{deployment}} {{policy}}",
    ),
  ]),
  panel("Replicas wanted, by the autoscaler", "short", [
    foreign(
      'max by (horizontalpodautoscaler) (kube_horizontalpodautoscaler_status_desired_replicas{horizontalpodautoscaler=~"$service"})',
      "{{horizontalpodautoscaler}}",
    ),
  ]),
  panel("Of the most it may have", "percentunit", [
    foreign(
      'max by (horizontalpodautoscaler) (kube_horizontalpodautoscaler_status_current_replicas{horizontalpodautoscaler=~"$service"} / kube_horizontalpodautoscaler_spec_max_replicas{horizontalpodautoscaler=~"$service"})',
      "{{horizontalpodautoscaler}}",
    ),
  ]),
];

const rest = (Object.keys(METRICS) as MetricName[]).filter((name) => !used.has(name)).map(leftOver);

const SERVICE = { name: "service", query: "label_values(node_info, service)" };

export const BOARDS: readonly Board[] = [
  board(
    "dl-lambda-overview",
    "DL-Lambda: overview",
    [SERVICE],
    rest.length > 0 ? [...overviewPanels, row("Everything else"), ...rest] : overviewPanels,
  ),
  board(
    "dl-lambda-model",
    "DL-Lambda: one model",
    [
      SERVICE,
      { name: "model", query: "label_values(inference_model_version, model)" },
      { name: "network", query: 'label_values(inference_model_version{model=~"$model"}, name)' },
    ],
    modelPanels,
  ),
  board("dl-lambda-rabbitmq", "DL-Lambda: RabbitMQ", [SERVICE], rabbitPanels),
  board(
    "dl-lambda-autoscaling",
    "DL-Lambda: autoscaling",
    [SERVICE],
    [
      text(
        "The last row needs kube-state-metrics, and of k8s/ the component `scaling` for what its policies want.",
      ),
      ...autoscalingPanels,
    ],
  ),
];
