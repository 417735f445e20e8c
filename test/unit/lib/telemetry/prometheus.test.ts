import { ServiceBroker } from "moleculer";
import { count, gauge, liveGauge, METRICS, observe, wireName } from "../../../../lib/telemetry/metrics.ts";
import { metricsText, scrape } from "../../../../lib/telemetry/prometheus.ts";

const broker = () => new ServiceBroker({ nodeID: "node-1", namespace: "dl", logger: false });

/** Lines of one metric, without its header. */
async function samples(node: ServiceBroker, name: string): Promise<string[]> {
  return (await metricsText(node)).split("\n").filter((line) => line.startsWith(name));
}

const NETWORK = { network: "pets", version: "1" };

test("counters count, by their labels", async () => {
  const node = broker();
  count(node, "http.requests.total", { route: "/api/classify", status: "200" });
  count(node, "http.requests.total", { route: "/api/classify", status: "200" }, 2);
  count(node, "http.requests.total", { route: "none", status: "404" });
  expect(await samples(node, "http_requests_total")).toEqual([
    'http_requests_total{route="/api/classify",status="200"} 3',
    'http_requests_total{route="none",status="404"} 1',
  ]);
});

test("a histogram has its buckets, its sum and its count", async () => {
  const node = broker();
  for (const size of [1, 3, 500]) observe(node, "inference.batch.size", size, NETWORK);
  const lines = await samples(node, "inference_batch_size");
  expect(lines).toEqual(
    expect.arrayContaining([
      'inference_batch_size_bucket{le="1",network="pets",version="1"} 1',
      'inference_batch_size_bucket{le="4",network="pets",version="1"} 2',
      'inference_batch_size_bucket{le="128",network="pets",version="1"} 2',
      'inference_batch_size_bucket{le="+Inf",network="pets",version="1"} 3',
      'inference_batch_size_sum{network="pets",version="1"} 504',
      'inference_batch_size_count{network="pets",version="1"} 3',
    ]),
  );
});

test("a live gauge is read at each scrape, and leaves no last value behind", async () => {
  const node = broker();
  let queued = 3;
  const remove = liveGauge(node, "inference.queued", NETWORK, () => queued);
  expect(await samples(node, "inference_queued")).toEqual(['inference_queued{network="pets",version="1"} 3']);
  queued = 5;
  expect(await samples(node, "inference_queued")).toEqual(['inference_queued{network="pets",version="1"} 5']);
  remove();
  expect(await samples(node, "inference_queued")).toEqual([]);
});

test("a live gauge put in place of another outlives it", async () => {
  const node = broker();
  const removeOld = liveGauge(node, "inference.queued", NETWORK, () => 1);
  liveGauge(node, "inference.queued", NETWORK, () => 2);
  removeOld();
  expect(await samples(node, "inference_queued")).toEqual(['inference_queued{network="pets",version="1"} 2']);
});

test("two brokers of one process have each their own values", async () => {
  const [one, two] = [broker(), broker()];
  gauge(one, "node.cpu.ratio", 0.5);
  gauge(two, "node.cpu.ratio", 0.25);
  expect(await samples(one, "node_cpu_ratio")).toEqual(["node_cpu_ratio 0.5"]);
  expect(await samples(two, "node_cpu_ratio")).toEqual(["node_cpu_ratio 0.25"]);
});

test("whatever stands in a label, the line stays one", async () => {
  const node = broker();
  count(node, "retry.attempts.total", { action: 'line\nbreak "quoted" back\\slash' });
  expect(await samples(node, "retry_attempts_total")).toEqual([
    'retry_attempts_total{action="line\\nbreak \\"quoted\\" back\\\\slash"} 1',
  ]);
});

test("the process is measured under the names that common dashboards know", async () => {
  const text = await metricsText(broker());
  for (const name of [
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_open_fds",
    "nodejs_eventloop_lag_seconds",
    "nodejs_eventloop_lag_p99_seconds",
    "nodejs_heap_size_used_bytes",
    "nodejs_version_info",
  ]) {
    expect(text).toMatch(new RegExp(`^${name}(\\{.*\\})? [\\d.e+-]+$`, "m"));
  }
});

test("every metric of the table is declared once, with its meaning", async () => {
  const text = await metricsText(broker());
  for (const [name, { about }] of Object.entries(METRICS)) {
    expect(text.split(`# HELP ${wireName(name)} ${about}\n`)).toHaveLength(2);
  }
  const declared = [...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name);
  expect(new Set(declared).size).toBe(declared.length);
});

test("the text for scrapes is written at most once a second", async () => {
  const node = broker();
  count(node, "retry.attempts.total", { action: "first" });
  const first = await scrape(node, 5000);
  count(node, "retry.attempts.total", { action: "second" });
  expect(await scrape(node, 5999)).toBe(first);
  expect(await scrape(node, 6000)).toContain('action="second"');
});
