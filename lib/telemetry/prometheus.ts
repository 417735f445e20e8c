import type { MetricRegistry, ServiceBroker } from "moleculer";

/** Media type of the text format, version 0.0.4. */
export const METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

type Labels = Readonly<Record<string, unknown>>;

/** A value of a Moleculer metric; which fields are there depends on the metric's type. */
interface Snapshot {
  readonly labels?: Labels;
  readonly value?: unknown;
  readonly count?: number;
  readonly sum?: number;
  readonly buckets?: Readonly<Record<string, number>>;
  readonly quantiles?: Readonly<Record<string, number>>;
}

/** Metrics of Moleculer that would tell a stranger of the host, or make a new series every second. */
const HIDDEN = ["os.user.", "os.network.", "process.arguments", "os.datetime."];

/** The broker's metrics for Prometheus, each with its namespace and node ID. Empty when metrics are off. */
export function metricsText(broker: ServiceBroker): string {
  return expose(broker.metrics, { namespace: broker.namespace, node: broker.nodeID });
}

/**
 * Metrics in Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats/). Moleculer's
 * own reporter opens a port of its own and writes what Prometheus does not read: quantiles, mean and variance in the
 * middle of a histogram, neither sum nor count without them, and labels with line breaks.
 *
 * @param common labels put on every value
 */
export function expose(metrics: MetricRegistry, common: Labels = {}): string {
  const families = [...metrics.store.values()]
    .filter(({ name }) => !HIDDEN.some((prefix) => name.startsWith(prefix)))
    .map((metric) => {
      const values: readonly Snapshot[] = metric.snapshot();
      const name = metricName(metric.name);
      const samples = values.flatMap((value) => writeValue(metric.type, name, value, common));
      if (samples.length === 0) return "";
      const about = escapeHelp(metric.description ?? metric.name);
      return [
        `# HELP ${name} ${about}`,
        `# TYPE ${name} ${family(metric.type, values)}`,
        ...samples,
        "",
      ].join("\n");
    });
  return families.join("");
}

function family(type: string, values: readonly Snapshot[]): string {
  if (type === "info") return "gauge";
  if (type !== "histogram") return type;
  return values.some(({ buckets }) => buckets) ? "histogram" : "summary";
}

function writeValue(type: string, name: string, value: Snapshot, common: Labels): readonly string[] {
  const labels = { ...common, ...value.labels };
  if (type === "info") return [sample(name, { ...labels, value: value.value }, 1)];
  if (type !== "histogram") return typeof value.value === "number" ? [sample(name, labels, value.value)] : [];
  const { count = 0, sum = 0, buckets, quantiles = {} } = value;
  const parts = buckets
    ? [...Object.entries(buckets).map(([le, n]) => sample(`${name}_bucket`, { ...labels, le }, n))].concat(
        sample(`${name}_bucket`, { ...labels, le: "+Inf" }, count),
      )
    : Object.entries(quantiles).map(([quantile, n]) => sample(name, { ...labels, quantile }, n));
  return [...parts, sample(`${name}_sum`, labels, sum), sample(`${name}_count`, labels, count)];
}

function sample(name: string, labels: Labels, value: number | undefined): string {
  const text = Object.entries(labels)
    .filter(([, label]) => label !== undefined && label !== null)
    .map(([label, content]) => `${labelName(label)}="${escapeLabel(String(content))}"`)
    .join(",");
  return `${name}${text === "" ? "" : `{${text}}`} ${number(value)}`;
}

function number(value: number | undefined): string {
  if (value === undefined || Number.isNaN(value)) return "NaN";
  if (Number.isFinite(value)) return String(value);
  return value > 0 ? "+Inf" : "-Inf";
}

function metricName(name: string): string {
  return name.replace(/[^a-zA-Z0-9_:]/g, "_").replace(/^(?=\d)/, "_");
}

function labelName(name: string): string {
  return name.replace(/[^a-zA-Z0-9_]/g, "_").replace(/^(?=\d)/, "_");
}

function escapeHelp(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}

function escapeLabel(text: string): string {
  return escapeHelp(text).replaceAll('"', '\\"');
}
