import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type BrokerOptions, ServiceBroker } from "moleculer";
import { drain, HealthChecks } from "../../middlewares/health.ts";
import { Load } from "../../middlewares/load.ts";
import { Metrics } from "../../middlewares/metrics.ts";
import { eventually } from "../../testkit/eventually.ts";
import { freePort } from "../../testkit/port.ts";
import { brokerUrl, deleteNamespace, releaseBroker } from "../../testkit/rabbitmq.ts";
import { AmqpTransporter } from "../../transporters/amqp.ts";

const NAMESPACE = `health-${process.pid}-${Date.now().toString(36)}`;

let url: string;

beforeAll(async () => {
  url = await brokerUrl();
}, 180_000);

afterAll(async () => {
  await deleteNamespace(NAMESPACE, url, []);
  await releaseBroker();
});

async function node(transporter: NonNullable<BrokerOptions["transporter"]>, more: BrokerOptions = {}) {
  const port = await freePort();
  const broker = new ServiceBroker({
    nodeID: "node-1",
    namespace: NAMESPACE,
    logger: false,
    internalServices: false,
    metrics: true,
    transporter,
    ...more,
    middlewares: [Metrics(), Load(), HealthChecks({ port, host: "127.0.0.1" })],
  });
  const ask = async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { headers: { connection: "close" } });
    return { status: response.status, text: await response.text() };
  };
  return { broker, port, ask };
}

test("a node that does not reach RabbitMQ is alive and not ready", async () => {
  const { broker, ask } = await node(
    { type: "AMQP", options: { url: "amqp://127.0.0.1:1" } },
    // Its timer for the next attempt would outlive the broker.
    { transit: { disableReconnect: true } },
  );
  const started = broker.start();
  await eventually(async () => (await ask("/health/live")).status === 200);
  const ready = await ask("/health/ready");
  expect(ready.status).toBe(503);
  expect(JSON.parse(ready.text).missing).toEqual(["starting", "transporter"]);
  await broker.stop();
  // It never started: nothing waits for this promise but the garbage collector.
  void started;
});

test("a node is ready while it is connected, not while RabbitMQ is lost, and again afterwards", async () => {
  const transporter = new AmqpTransporter({ url });
  const { broker, ask } = await node(transporter);
  await broker.start();
  expect((await ask("/health/ready")).status).toBe(200);
  const metrics = await ask("/metrics");
  expect(metrics.text).toMatch(/^node_memory_ratio 0\.\d+/m);
  expect(metrics.text).toMatch(/^node_cpu_ratio [\d.]+/m);

  await transporter.connection?.close();
  await eventually(async () => (await ask("/health/ready")).status === 503);
  expect((await ask("/health/live")).status).toBe(200);
  await eventually(async () => (await ask("/health/ready")).status === 200);
  await broker.stop();
}, 60_000);

test("a node that is ready has told the others what it serves", async () => {
  const options: BrokerOptions = {
    // A heartbeat makes others ask.
    heartbeatInterval: 600,
  };
  const witness = new ServiceBroker({
    ...options,
    nodeID: "node-2",
    namespace: NAMESPACE,
    logger: false,
    transporter: new AmqpTransporter({ url }),
  });
  await witness.start();
  const { broker, ask } = await node(new AmqpTransporter({ url }), options);
  // Moleculer's own way to tell, a second after.
  broker.localServiceChanged = () => {};
  broker.createService({ name: "model", actions: { predict: () => "yes" } });
  await broker.start();
  expect((await ask("/health/ready")).status).toBe(200);
  await eventually(async () => (await witness.call("model.predict")) === "yes");
  await broker.stop();
  await witness.stop();
}, 60_000);

test("a draining node is not ready, and its admin server goes with it", async () => {
  const { broker, port, ask } = await node(new AmqpTransporter({ url }));
  await broker.start();
  await drain(broker);
  const ready = await ask("/health/ready");
  expect(ready.status).toBe(503);
  expect(JSON.parse(ready.text).missing).toEqual(["draining"]);
  expect((await ask("/health/live")).status).toBe(200);
  await broker.stop();
  await expect(fetch(`http://127.0.0.1:${port}/health/live`)).rejects.toThrow();
}, 60_000);

test("a port that is taken fails the start and says so", async () => {
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
  const { port } = taken.address() as AddressInfo;
  const broker = new ServiceBroker({
    logger: false,
    middlewares: [HealthChecks({ port, host: "127.0.0.1" })],
  });
  await expect(broker.start()).rejects.toThrow("EADDRINUSE");
  await new Promise((resolve) => taken.close(resolve));
});
