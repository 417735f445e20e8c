import { connect } from "amqplib";
import { encode } from "cbor-x";
import { Loggers, ServiceBroker } from "moleculer";
import { loadEnv } from "../../lib/env.ts";
import { Peers } from "../../middlewares/peers.ts";
import { brokerOptions } from "../../moleculer.config.ts";
import { eventually } from "../../testkit/eventually.ts";
import { brokerUrl, deleteNamespace, releaseBroker } from "../../testkit/rabbitmq.ts";
import { AmqpTransporter } from "../../transporters/amqp.ts";

const NAMESPACE = `peers-${process.pid}-${Date.now().toString(36)}`;
const CALL_MS = 50;

let url: string;
const brokers: ServiceBroker[] = [];

class Lines extends Loggers.Base<Record<string, unknown>> {
  readonly lines: string[] = [];
  override getLogHandler() {
    return (level: string, args: unknown[]) => void this.lines.push([level, ...args.map(asText)].join(" "));
  }
}

const asText = (part: unknown) => (typeof part === "string" ? part : JSON.stringify(part));

/** A started node, what it logged, and why it would have ended its process. */
async function start(nodeID: string) {
  const logger = new Lines();
  const transporter = new AmqpTransporter({ url });
  const broker = new ServiceBroker({
    namespace: NAMESPACE,
    nodeID,
    transporter,
    serializer: "CBOR",
    logger: logger as never,
    heartbeatInterval: 1,
    skipProcessEventRegistration: true,
    middlewares: [Peers({ callEveryMs: CALL_MS })],
  });
  const ends: string[] = [];
  broker.fatal = (message: string) => void ends.push(message);
  brokers.push(broker);
  await broker.start();
  return { broker, transporter, ends, lines: logger.lines };
}

/** Sends a packet that says it is from `sender` to all nodes. */
async function forge(node: AmqpTransporter, type: string, payload: object) {
  const connection = await connect(url);
  const channel = await connection.createChannel();
  const packet = {
    ver: "5",
    services: [],
    ipList: [],
    config: {},
    client: {},
    metadata: {},
    seq: 9,
    ...payload,
  };
  channel.publish(node.topology.allExchange, type, encode(packet), { type });
  await channel.close();
  await connection.close();
}

beforeAll(async () => {
  url = await brokerUrl();
}, 180_000);

afterEach(async () => {
  await Promise.all(brokers.splice(0).map((broker) => broker.stop()));
});

afterAll(async () => {
  await deleteNamespace(NAMESPACE, url, []);
  await releaseBroker();
}, 60_000);

test("a packet that bears a node's own ID does not end the node, and is told", async () => {
  const { broker, transporter, ends, lines } = await start("node-1");
  await forge(transporter, "INFO", { sender: "node-1", instanceID: "forged", uptimeMs: 1e12 });
  await eventually(() => lines.some((line) => line.includes("this node's ID")));
  // Until it has called for the other, and none has answered.
  await new Promise((resolve) => setTimeout(resolve, 7 * CALL_MS));
  expect(ends).toEqual([]);
  expect(await broker.call("$node.list")).toHaveLength(1);
}, 30_000);

test("of two processes with one node ID the younger ends, and says why", async () => {
  const old = await start("twin");
  const young = await start("twin");
  await eventually(() => young.ends.length > 0, 20_000);
  expect(young.ends[0]).toBe("Another process has the node ID twin: give each its own NODE_ID");
  expect(old.ends).toEqual([]);
}, 60_000);

test("a sender whose name would forge lines of the log is none", async () => {
  const { broker, transporter, lines } = await start("node-1");
  const evil = "evil\n\u001b[31m[00:00:00] FATAL all is lost";
  for (const type of ["INFO", "HEARTBEAT", "DISCOVER", "DISCONNECT", "PING"]) {
    await forge(transporter, type, { sender: evil, instanceID: "x", services: [{ name: "m", actions: {} }] });
  }
  await eventually(() => lines.some((line) => line.includes("no node ID")));
  const nodes = await broker.call<{ id: string }[]>("$node.list");
  expect(nodes.map(({ id }) => id)).toEqual(["node-1"]);
  expect(lines.filter((line) => line.includes("\n") || line.includes("\u001b"))).toEqual([]);
}, 30_000);

test("nobody can ask a node for its options, which hold passwords", async () => {
  const broker = new ServiceBroker({ ...brokerOptions(loadEnv({ LOG_LEVEL: "fatal" })), logger: false });
  brokers.push(broker);
  await broker.start();
  expect(await broker.call("$node.list")).toHaveLength(1);
  await expect(broker.call("$node.options")).rejects.toMatchObject({ type: "SERVICE_NOT_FOUND" });
});
