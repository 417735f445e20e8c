import sharp from "sharp";
import { type ReceivedSpan, startCollector } from "../../testkit/collector.ts";
import { eventually } from "../../testkit/eventually.ts";
import { http } from "../../testkit/http.ts";
import { brokerUrl, releaseBroker } from "../../testkit/rabbitmq.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";

const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER = "00f067aa0ba902b7";

describe("traces of a cluster over RabbitMQ", () => {
  let collector: Awaited<ReturnType<typeof startCollector>>;
  let servers: readonly TestServer[] = [];
  let url = "";

  beforeAll(async () => {
    collector = await startCollector();
    const env = {
      TRANSPORTER: await brokerUrl(),
      NAMESPACE: `traces-${process.pid}`,
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint,
      CACHE_TTL_MS: "0",
    };
    servers = await Promise.all(
      ["gateway", "dispatcher", "resnet-cat"].map((SERVICES) => startServer({ ...env, SERVICES })),
    );
    url = servers[0]?.url ?? "";
    // Until the dispatcher knows the model.
    await eventually(async () => (await classify({ "x-request-id": "warm" })).status === 200, 30_000);
  }, 120_000);

  afterAll(async () => {
    await Promise.all(servers.map((server) => server.stop()));
    await collector?.stop();
    await releaseBroker();
  }, 60_000);

  async function classify(
    headers: Readonly<Record<string, string>>,
    path = "/api/classify?models=resnet-cat",
  ) {
    const body = await sharp({ create: { width: 64, height: 64, channels: 3, background: "olive" } })
      .png()
      .toBuffer();
    return http(`${url}${path}`, { headers: { "content-type": "image/png", ...headers }, body });
  }

  const named = (spans: readonly ReceivedSpan[], name: RegExp) => {
    const span = spans.find((each) => name.test(each.name));
    if (!span) throw new Error(`No span ${name} among ${spans.map((each) => each.name).join(", ")}`);
    return span;
  };
  const ofTrace = (traceId: string, count: number) =>
    eventually(() => {
      const spans = collector.spans.filter((span) => span.traceId === traceId);
      if (spans.length < count) throw new Error(`${spans.length} spans of ${traceId}`);
      return spans;
    });

  test("the client's trace goes on through HTTP and RabbitMQ, each step under the one before", async () => {
    await classify({ traceparent: `00-${TRACE}-${CALLER}-01` });
    const spans = await ofTrace(TRACE, 3);
    const [rest, dispatch, predict] = [/^gateway\.rest$/, /^dispatcher\.ask$/, /resnet-cat\.predict$/].map(
      (name) => named(spans, name),
    );
    expect(rest).toMatchObject({
      parentSpanId: CALLER,
      kind: 2,
      service: "gateway",
      attributes: {
        "http.route": "/api/classify",
        "http.request.method": "POST",
        "http.response.status_code": "200",
      },
    });
    expect(dispatch).toMatchObject({ parentSpanId: rest?.spanId, service: "dispatcher" });
    expect(predict).toMatchObject({
      parentSpanId: dispatch?.spanId,
      service: "resnet-cat",
      status: { code: 0 },
      attributes: { "inference.batch_size": "1", "inference.compute_ms": expect.any(Number) },
    });
    expect(new Set([rest, dispatch, predict].map((span) => span?.instance)).size).toBe(3);
    expect(predict?.end).toBeGreaterThan(predict?.start ?? 0n);
    expect(spans).toHaveLength(3);
    // No parameters: they hold the image.
    expect(JSON.stringify(spans.map(({ attributes }) => attributes)).length).toBeLessThan(5_000);
  });

  test("a request without a trace begins one, known by its request ID in every process", async () => {
    await classify({ "x-request-id": "begin-here" });
    const root = await eventually(() => {
      const span = collector.spans.find(
        (each) => each.attributes["requestID"] === "begin-here" && !each.parentSpanId,
      );
      if (!span) throw new Error("No root yet");
      return span;
    });
    expect(root).toMatchObject({ name: "gateway.rest", traceId: expect.stringMatching(/^[0-9a-f]{32}$/) });
    const spans = await ofTrace(root.traceId, 3);
    expect(new Set(spans.map(({ service }) => service)).size).toBe(3);
  });

  test("an error is in the span that had it", async () => {
    await classify(
      { traceparent: `00-${"a".repeat(32)}-${CALLER}-01` },
      "/api/classify?models=no-such-model",
    );
    const spans = await ofTrace("a".repeat(32), 1);
    expect(named(spans, /^gateway\.rest$/).attributes["http.response.status_code"]).toBe("404");
  });

  test("what the client does not want sampled is not, and neither are probes", async () => {
    await classify({ traceparent: `00-${"b".repeat(32)}-${CALLER}-00`, "x-request-id": "not-sampled" });
    await http(`${url}/health/ready`, { headers: { "x-request-id": "a-probe" } });
    await classify({ traceparent: `00-${"c".repeat(32)}-${CALLER}-01` });
    await ofTrace("c".repeat(32), 3);
    const ids = collector.spans.map(({ attributes }) => attributes["requestID"]);
    expect(ids).not.toContain("not-sampled");
    expect(ids).not.toContain("a-probe");
  });

  test("a collector that is overloaded costs no request, and gets its spans later", async () => {
    collector.answerWith(503);
    const before = collector.messages();
    expect((await classify({ traceparent: `00-${"d".repeat(32)}-${CALLER}-01` })).status).toBe(200);
    await eventually(() => collector.messages() > before + 2);
    expect(collector.spans.some(({ traceId }) => traceId === "d".repeat(32))).toBe(false);
    collector.answerWith(200);
    await ofTrace("d".repeat(32), 3);
    expect(servers[0]?.log()).toContain("Tracing: Enabled");
    expect(servers[0]?.log().match(/Traces cannot be sent/g)).toHaveLength(1);
  });
});

test("without a collector's address nothing is traced", async () => {
  const server = await startServer();
  try {
    expect(server.log()).not.toContain("Tracing: Enabled");
  } finally {
    await server.stop();
  }
});
