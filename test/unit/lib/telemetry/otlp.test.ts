import { ServiceBroker } from "moleculer";
import { defineExporter } from "../../../../lib/define.ts";
import { actionTags, OtlpExporter, parseTraceparent } from "../../../../lib/telemetry/otlp.ts";
import { startCollector } from "../../../../testkit/collector.ts";
import { eventually } from "../../../../testkit/eventually.ts";

const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const MANY = 5_000;
const KEPT = 4_096;

let collector: Awaited<ReturnType<typeof startCollector>>;
beforeEach(async () => {
  collector = await startCollector();
});
afterEach(() => collector.stop());

/** A broker whose spans leave when it stops, or when there are enough of them; or after `flushMs`. */
async function start(flushMs = 60_000) {
  const exporter = new OtlpExporter({ endpoint: `${collector.endpoint}/`, flushMs });
  const broker = new ServiceBroker({
    nodeID: "node-1",
    namespace: "dl",
    logger: false,
    tracing: { enabled: true, exporter: defineExporter(exporter), tags: { action: actionTags } },
  });
  broker.createService({
    name: "echo",
    actions: {
      outer: (ctx) => ctx.call("echo.inner", { image: "secret" }),
      inner: () => ({ items: [{ batchSize: 3, timing: { queueMs: 0.5, computeMs: 2 } }] }),
      fail: () => {
        throw new RangeError("too much");
      },
    },
  });
  await broker.start();
  return broker;
}

test("spans that are still here at the end are sent, each under its caller's, without parameters", async () => {
  const broker = await start();
  await broker.call("echo.outer", {}, { meta: { traceparent: `00-${TRACE}-00f067aa0ba902b7-01` } });
  await broker.stop();
  const [outer, inner] = ["echo.outer", "echo.inner"].map((name) =>
    collector.spans.find((span) => span.name === name),
  );
  expect(outer).toMatchObject({ traceId: TRACE, service: "echo", instance: "node-1", status: { code: 0 } });
  expect(outer?.parentSpanId).toBeUndefined();
  expect(inner).toMatchObject({
    traceId: TRACE,
    parentSpanId: outer?.spanId,
    kind: 1,
    attributes: { "inference.queue_ms": 0.5, "inference.compute_ms": "2", "inference.batch_size": "3" },
  });
  expect(inner?.spanId).toMatch(/^[0-9a-f]{16}$/);
  expect(JSON.stringify([outer?.attributes, inner?.attributes])).not.toContain("secret");
});

test("an error is a span's status", async () => {
  const broker = await start();
  await expect(broker.call("echo.fail")).rejects.toThrow("too much");
  await broker.stop();
  expect(collector.spans[0]).toMatchObject({ name: "echo.fail", status: { code: 2, message: "too much" } });
});

test("with the collector down spans are kept up to a bound, and those are sent once it is back", async () => {
  collector.answerWith(503);
  const broker = await start(20);
  for (let i = 0; i < MANY; i++) await broker.call("echo.inner");
  await eventually(() => collector.messages() > 0);
  collector.answerWith(200);
  await eventually(() => collector.spans.length >= KEPT);
  await broker.stop();
  expect(collector.spans).toHaveLength(KEPT);
  expect(new Set(collector.spans.map(({ spanId }) => spanId)).size).toBe(KEPT);
});

test.each([
  ["a tenth of a trace", `00-${TRACE.slice(0, 4)}-00f067aa0ba902b7-01`],
  ["nothing", undefined],
  ["words", "true"],
])("%s is no trace context", (_, text) => {
  expect(parseTraceparent(text)).toBeUndefined();
});

test.each([
  ["01", true],
  ["00", false],
  ["03", true],
])("flags %s mean sampled: %j", (flags, sampled) => {
  expect(parseTraceparent(`00-${TRACE}-00f067aa0ba902b7-${flags}`)).toEqual({
    traceId: TRACE,
    spanId: "00f067aa0ba902b7",
    sampled,
  });
});
