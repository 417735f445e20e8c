import { ServiceBroker } from "moleculer";
import { registerMetrics } from "../../../../lib/telemetry/metrics.ts";
import { expose, metricsText } from "../../../../lib/telemetry/prometheus.ts";

interface Family {
  readonly type: string;
  readonly samples: Map<string, number>;
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const SAMPLE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (NaN|[+-]Inf|-?[0-9.]+(?:e[+-]?[0-9]+)?)$/;
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\["\\n])*)"(?:,|$)/y;

const SUFFIXES: Readonly<Record<string, readonly string[]>> = {
  counter: [""],
  gauge: [""],
  histogram: ["_bucket", "_sum", "_count"],
  summary: ["", "_sum", "_count"],
};

/** Reads the text format as strictly as Prometheus does, by the families it declares; throws on what breaks it. */
function parse(text: string): Map<string, Family> {
  const families = new Map<string, Family>();
  let name = "";
  if (text !== "" && !text.endsWith("\n")) throw new Error("no line feed at the end");
  for (const line of text.split("\n").slice(0, -1)) {
    const [, keyword, metric = "", rest = ""] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? [];
    if (keyword === "HELP") {
      if (!NAME.test(metric) || families.has(metric)) throw new Error(`bad or second family: ${line}`);
      name = metric;
    } else if (keyword === "TYPE") {
      if (metric !== name || !SUFFIXES[rest]) throw new Error(`bad type: ${line}`);
      families.set(name, { type: rest, samples: new Map() });
    } else addSample(line, name, families.get(name));
  }
  return families;
}

function addSample(line: string, name: string, family: Family | undefined): void {
  const [, sample = "", labels = "", value = ""] = SAMPLE.exec(line) ?? [];
  const suffix = sample.slice(name.length);
  if (!family || !sample.startsWith(name) || !SUFFIXES[family.type]?.includes(suffix)) {
    throw new Error(`does not belong here: ${line}`);
  }
  const seen: string[] = [];
  LABEL.lastIndex = 0;
  while (LABEL.lastIndex < labels.length) {
    const [, label = ""] = LABEL.exec(labels) ?? [];
    if (label === "" || seen.includes(label)) throw new Error(`bad labels: ${line}`);
    seen.push(label);
  }
  const key = `${sample}{${labels}}`;
  if (family.samples.has(key)) throw new Error(`twice: ${line}`);
  family.samples.set(key, Number(value.replace("Inf", "Infinity")));
}

function broker(): ServiceBroker {
  return new ServiceBroker({ nodeID: "node-1", namespace: "dl", logger: false, metrics: { enabled: true } });
}

test("all metrics of Moleculer and of ours make a valid page", async () => {
  const node = broker();
  registerMetrics(node);
  node.createService({ name: "echo", actions: { ping: () => "pong" } });
  await node.start();
  await node.call("echo.ping");
  node.metrics.increment("http.requests.total", { route: "POST /api/classify", status: "200" });
  node.metrics.observe("inference.queue.seconds", 0.003, { model: "resnet-cat" });
  const families = parse(metricsText(node));
  await node.stop();
  expect(families.get("moleculer_request_total")?.samples.size).toBeGreaterThan(0);
  expect(families.get("http_requests_total")).toEqual({
    type: "counter",
    samples: new Map([
      ['http_requests_total{namespace="dl",node="node-1",route="POST /api/classify",status="200"}', 1],
    ]),
  });
});

test("a histogram has its buckets, its sum and its count, with and without quantiles", () => {
  for (const quantiles of [{}, { quantiles: [0.5, 0.99] }, { quantiles: [] }]) {
    const node = broker();
    node.metrics.register({ name: "wait.seconds", type: "histogram", buckets: [0.1, 1], ...quantiles });
    for (const seconds of [0.05, 0.5, 5]) node.metrics.observe("wait.seconds", seconds);
    expect(parse(expose(node.metrics)).get("wait_seconds")).toEqual({
      type: "histogram",
      samples: new Map([
        ['wait_seconds_bucket{le="0.1"}', 1],
        ['wait_seconds_bucket{le="1"}', 2],
        ['wait_seconds_bucket{le="+Inf"}', 3],
        ["wait_seconds_sum{}", 5.55],
        ["wait_seconds_count{}", 3],
      ]),
    });
  }
});

test("quantiles without buckets are a summary", () => {
  const node = broker();
  node.metrics.register({ name: "wait.seconds", type: "histogram", quantiles: [0.5] });
  node.metrics.observe("wait.seconds", 2);
  expect(parse(expose(node.metrics)).get("wait_seconds")).toEqual({
    type: "summary",
    samples: new Map([
      ['wait_seconds{quantile="0.5"}', 2],
      ["wait_seconds_sum{}", 2],
      ["wait_seconds_count{}", 1],
    ]),
  });
});

test("whatever stands in a label or a description, the page stays valid and the label whole", () => {
  const node = broker();
  node.metrics.register({
    name: "odd-name.1",
    type: "gauge",
    labelNames: ["a-b"],
    description: 'x\n# TYPE \\ "q"',
  });
  node.metrics.set("odd-name.1", 1, { "a-b": 'line\nbreak "quoted" back\\slash}' });
  const family = parse(expose(node.metrics)).get("odd_name_1");
  expect([...(family?.samples.keys() ?? [])]).toEqual([
    'odd_name_1{a_b="line\\nbreak \\"quoted\\" back\\\\slash}"}',
  ]);
});

test.each([
  [Number.POSITIVE_INFINITY, "+Inf"],
  [Number.NEGATIVE_INFINITY, "-Inf"],
  [Number.NaN, "NaN"],
  [1e21, "1e+21"],
  [1e-7, "1e-7"],
])("writes %d as %s", (value, text) => {
  const node = broker();
  node.metrics.register({ name: "odd", type: "gauge" });
  node.metrics.set("odd", value);
  expect(expose(node.metrics)).toContain(`odd ${text}\n`);
});

test("leaves out what tells a stranger of the host", () => {
  const node = broker();
  for (const name of ["os.user.homedir", "os.network.address", "process.arguments"]) {
    node.metrics.register({ name, type: "info" });
    node.metrics.set(name, "secret");
  }
  expect(expose(node.metrics)).not.toContain("secret");
});

test("a metric without a value yet is left out, with its header", () => {
  const node = broker();
  node.metrics.register({ name: "later", type: "gauge" });
  expect(expose(node.metrics)).not.toContain("later");
});

test("a broker with metrics off has an empty page", () => {
  expect(metricsText(new ServiceBroker({ logger: false, metrics: false }))).toBe("");
});
