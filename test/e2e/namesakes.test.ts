import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { brokerUrl, deleteNamespace, releaseBroker } from "../../testkit/rabbitmq.ts";
import { startServer } from "../../testkit/server.ts";

const NAMESPACE = `namesakes-${process.pid}`;
let transporter: string;

beforeAll(async () => {
  transporter = await brokerUrl();
}, 180_000);

afterAll(async () => {
  await deleteNamespace(NAMESPACE, transporter, []);
  await releaseBroker();
}, 60_000);

const start = () =>
  startServer({
    SERVICES: "resnet-cat",
    NODE_ID: "twin",
    TRANSPORTER: transporter,
    NAMESPACE,
    ENGINE_THREADS: "1",
  });

test("of two model nodes with one node ID, which hear of nobody, the younger says why and ends", async () => {
  const old = await start();
  const young = await start();
  try {
    const ended = await Promise.race([
      once(young.process, "exit"),
      delay(60_000, ["is still there"], { ref: false }),
    ]);
    expect(ended[0]).toBe(1);
    expect(young.log()).toContain("Another process has the node ID twin: give each its own NODE_ID");
    expect(old.process.exitCode).toBeNull();
    expect(old.log()).toContain("A packet has this node's ID but is not from it");
  } finally {
    await Promise.all([old.stop(), young.stop()]);
  }
}, 180_000);
