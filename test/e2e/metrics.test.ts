import sharp from "sharp";
import { METRICS } from "../../lib/telemetry/metrics.ts";
import { eventually } from "../../testkit/eventually.ts";
import { checkMetrics, promtool } from "../../testkit/prometheus.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";

/** Of a scrape of a process that has had no work: 1,000 pods scraped every 15 s are 1.3 MB/s. */
const MAX_IDLE_BYTES = 20_000;
const TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

describe("what hosts see of a process", () => {
  let server: TestServer;

  const post = (image: Buffer | string, headers: Record<string, string> = {}) =>
    fetch(`${server.url}/api/classify`, {
      method: "POST",
      headers: { "content-type": "image/png", ...headers },
      body: typeof image === "string" ? image : new Uint8Array(image),
    });
  const picture = (background: string) =>
    sharp({ create: { width: 200, height: 200, channels: 3, background } })
      .png()
      .toBuffer();
  const scrape = async () => (await fetch(`${server.url}/metrics`)).text();

  beforeAll(async () => {
    server = await startServer({ LOG_LEVEL: "debug" });
  }, 90_000);

  afterAll(() => server?.stop());

  test("an idle process has little to tell: a scrape stays small", async () => {
    const { length } = await scrape();
    expect(length).toBeGreaterThan(1_000);
    expect(length).toBeLessThanOrEqual(MAX_IDLE_BYTES);
  });

  test("every metric of a process that has worked is there, with a value", async () => {
    const red = await picture("red");
    expect((await post(red)).status).toBe(200);
    expect((await post(red)).status).toBe(200);
    expect((await post("no image")).status).toBe(415);
    // The text may be a second old.
    let text = "";
    await eventually(async () => {
      text = await scrape();
      return text.includes('status="415"');
    });
    for (const line of [
      /^http_requests_total\{.*route="\/api\/classify",status="200".*\} [1-9]/m,
      /^http_requests_total\{.*status="415".*\} 1$/m,
      /^http_request_seconds_count\{.*route="\/api\/classify".*\} [1-9]/m,
      /^dispatcher_decode_seconds_sum 0*[.1-9]/m,
      /^inference_requests_total\{.*model="resnet-cat",outcome="ok".*\} [1-9]/m,
      /^inference_queue_seconds_bucket\{.*le="\+Inf".*\} [1-9]/m,
      /^inference_compute_seconds_count\{.*network="pets-resnet".*\} [1-9]/m,
      /^inference_batch_size_sum\{.*\} [1-9]/m,
      /^inference_batches_total\{.*reason="(full|idle)".*\} [1-9]/m,
      /^inference_queued\{.*network="pets-resnet".*\} 0$/m,
      /^inference_running\{.*network="pets-resnet".*\} 0$/m,
      /^inference_model_version\{.*name="pets-resnet".*\} 1$/m,
      // Both questions are put to one network: one look answers them.
      /^cache_requests_total\{.*result="hit".*\} 1$/m,
      /^cache_requests_total\{.*result="miss".*\} [1-9]/m,
      /^node_cpu_ratio [\d.]+$/m,
      /^node_memory_ratio 0\.\d+/m,
      /^node_info\{node="\S+",namespace="dl",version="[\d.]+"\} 1$/m,
      /^process_cpu_seconds_total [\d.]+$/m,
      /^nodejs_eventloop_lag_p99_seconds [\d.e-]+$/m,
    ]) {
      expect(text).toMatch(line);
    }
    for (const name of Object.keys(METRICS)) expect(name).toMatch(/^[a-z.]+$/);
    // Prometheus' own checker has nothing to say of any name, type or unit.
    expect(checkMetrics(await promtool(), text)).toBe("");
  });

  test("a request can be followed by its id and its trace through all services", async () => {
    await post(await picture("olive"), { "x-request-id": "follow-me", traceparent: TRACEPARENT });
    const lines = () => server.log().split("\n").join(" ").split("DEBUG");
    await eventually(() => {
      // The model's action is that of its version, of whichever of the two questions was put to it.
      for (const action of [/'dispatcher\.ask'/, /'1-[0-9a-f]{8}\.resnet-(cat|dog)\.predict'/]) {
        const line = lines().find(
          (text) => text.includes("REQUESTS: Action") && text.includes("follow-me") && action.test(text),
        );
        expect(line).toContain(TRACEPARENT);
      }
      return true;
    });
  });
});
