import { FakeClock } from "../../../testkit/fake-clock.ts";
import type { AmqpTransporterOptions } from "../../../transporters/options.ts";
import { settings } from "../../../transporters/options.ts";
import { Requester } from "../../../transporters/requester.ts";
import { Topology } from "../../../transporters/topology.ts";
import { FakeChannel } from "./fake-channel.ts";

const topology = new Topology("MOL-test");

function caller(options: Partial<AmqpTransporterOptions> = {}) {
  const clock = new FakeClock();
  const channel = new FakeChannel();
  const refused: string[] = [];
  const requester: Requester = new Requester({
    nodeID: "caller",
    instanceID: "caller-1",
    clock,
    topology,
    settings: settings({ url: "amqp://rabbit", ...options }),
    refuse(id, { type }) {
      refused.push(`${type} ${id}`);
      requester.forget(id);
    },
  });
  requester.peerConnected("node", { instance: "n1", epoch: "e1" });
  requester.resume(channel);
  return {
    clock,
    channel,
    refused,
    requester,
    send: (id: string, bytes = 10, pinned = false) =>
      requester.send({
        id,
        action: "a.b",
        target: "node",
        pinned,
        body: Buffer.alloc(bytes),
        timeout: 60_000,
      }),
  };
}

const ids = ({ published }: FakeChannel) => published.map(({ options }) => options.messageId);
const key = (epoch: string) => topology.key({ nodeID: "node", epoch }, "a.b");

test("a request goes to the queue of the chosen node's connection, a pinned one to its inbox", () => {
  const { channel, send } = caller();
  send("r");
  send("p", 10, true);
  expect(channel.published.map((each) => [each.exchange, each.key])).toEqual([
    [topology.targetedExchange, key("e1")],
    [topology.nodeExchange, "node"],
  ]);
});

test("what was put into the queue of a connection that is gone is sent again, once", () => {
  const { channel, requester, send } = caller();
  send("r");
  requester.peerConnected("node", { instance: "n1", epoch: "e2" });
  requester.peerConnected("node", { instance: "n1", epoch: "e2" });
  expect(channel.published.map((each) => each.key)).toEqual([key("e1"), key("e2")]);
});

test("each copy of a request says how much time it has left, from when it was sent", async () => {
  const { clock, channel, requester, send } = caller();
  send("r");
  await clock.advance(20_000);
  requester.peerConnected("node", { instance: "n1", epoch: "e2" });
  const sent = channel.published.map(({ options: { expiration, headers } }) => [expiration, headers]);
  expect(sent).toMatchObject([
    [60_000, { at: 0, timeout: 60_000 }],
    [40_000, { at: 20_000, timeout: 40_000 }],
  ]);
});

test("what a dead process held is left to others for a while, and not sent again once it is answered", async () => {
  const { channel, clock, requester, send } = caller();
  send("answered");
  send("lost");
  requester.peerConnected("node", { instance: "n2", epoch: "e2" });
  requester.forget("answered");
  expect(ids(channel)).toEqual(["answered", "lost"]);
  await clock.advance(10_000);
  expect(ids(channel)).toEqual(["answered", "lost", "lost"]);
});

test("what a silent node has is sent again, to where any node may take it", () => {
  const { channel, requester, send } = caller();
  send("r");
  requester.peerSilent("node");
  expect(channel.published.map((each) => each.key)).toEqual([key("e1"), key("")]);
});

test("all that waits is sent again over a new connection, no faster than RabbitMQ reads", () => {
  const { requester, send } = caller();
  for (let i = 0; i < 5; i++) send(`r${i}`);
  requester.lost("broken");
  const next = new FakeChannel();
  next.room = false;
  requester.resume(next);
  expect(ids(next)).toEqual(["r0"]);
  send("r5");
  expect(ids(next)).toEqual(["r0"]);
  requester.drained();
  expect(ids(next)).toEqual(["r0", "r1"]);
  next.room = true;
  requester.drained();
  expect(ids(next)).toEqual(["r0", "r1", "r2", "r3", "r4", "r5"]);
});

test("a request that had to wait bears what is left of its time, from when it is sent", async () => {
  const { channel, clock, requester, send } = caller();
  requester.pause();
  send("r");
  await clock.advance(10_000);
  requester.resume(channel);
  expect(channel.published.map(({ options }) => options.headers)).toEqual([
    expect.objectContaining({ at: clock.now(), timeout: 50_000 }),
  ]);
});

test("a request that RabbitMQ would not take is refused before it is sent", () => {
  const { channel, refused, requester, send } = caller({ maxMessageBytes: 1000 });
  send("fits", 1000);
  send("large", 1001);
  expect(refused).toEqual(["PAYLOAD_TOO_LARGE large"]);
  expect(ids(channel)).toEqual(["fits"]);
  expect(requester.size).toBe(1);
});

test("a RabbitMQ that takes less says so, and is not asked again", () => {
  const { refused, requester, send } = caller();
  send("small", 100);
  send("large", 200);
  requester.lost("channel: PRECONDITION_FAILED - message size 200 is larger than configured max size 150");
  send("later", 151);
  expect(refused).toEqual(["PAYLOAD_TOO_LARGE large", "PAYLOAD_TOO_LARGE later"]);
  const next = new FakeChannel();
  requester.resume(next);
  expect(ids(next)).toEqual(["small"]);
});

test("a full outbox refuses", () => {
  const { refused, send } = caller({ maxPendingBytes: 100 });
  send("a", 60);
  send("b", 60);
  expect(refused).toEqual(["QUEUE_FULL b"]);
});

test("what has to be sent again while RabbitMQ takes nothing is sent when it does", () => {
  const { channel, requester, send } = caller();
  send("r");
  requester.pause();
  requester.peerConnected("node", { instance: "n1", epoch: "e2" });
  requester.resume(channel);
  channel.room = false;
  send("other");
  requester.peerConnected("node", { instance: "n1", epoch: "e3" });
  expect(ids(channel)).toEqual(["r", "r", "other"]);
  channel.room = true;
  requester.drained();
  expect(ids(channel)).toEqual(["r", "r", "other", "r", "other"]);
});
