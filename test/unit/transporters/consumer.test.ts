import { FakeClock } from "../../../testkit/fake-clock.ts";
import { RequestConsumer } from "../../../transporters/consumer.ts";
import { MessageAge } from "../../../transporters/message-age.ts";
import { settings } from "../../../transporters/options.ts";
import { Topology } from "../../../transporters/topology.ts";
import { Warnings } from "../../../transporters/warnings.ts";
import { FakeChannel } from "./fake-channel.ts";

const ACTION = "work.do";
const topology = new Topology("MOL-test");
const seat = { nodeID: "node-1", epoch: "e" };
const shared = topology.shared(ACTION).name;
const targeted = topology.targeted(seat, 500).name;

function request(messageId: string, clock: FakeClock, action = ACTION, replyTo = "inbox") {
  const headers = { action, by: "instance", at: clock.now(), timeout: 5000 };
  return { messageId, replyTo, appId: "caller", headers };
}

async function serving() {
  const clock = new FakeClock();
  const channel = new FakeChannel();
  const cancelled = Promise.withResolvers<void>();
  channel.cancelled = cancelled.promise;
  /** Ends the work on a request. */
  const finish = new Map<string, () => void>();
  const requests: RequestConsumer = new RequestConsumer({
    clock,
    topology,
    settings: settings({ url: "amqp://rabbit", prefetch: 8 }),
    age: new MessageAge(() => clock.now()),
    warnings: new Warnings({ info() {}, warn() {}, error() {} }, () => clock.now()),
    failure: () => Buffer.from("failure"),
    fail() {},
    handle: async (body) => {
      const id = body.toString();
      requests.annotate({ id });
      if (id.startsWith("slow")) await new Promise<void>((resolve) => finish.set(id, resolve));
      requests.answer(id, Buffer.from(`answer to ${id}`));
    },
  });
  await requests.attach(channel, seat);
  await requests.serve([ACTION]);
  return { clock, channel, requests, cancelled, finish };
}

test.each([shared, targeted])(
  "a request that comes from the queue %s while the node begins to drain is run, not given back",
  async (queue) => {
    const { clock, channel, requests, cancelled } = await serving();
    const drained = requests.drain();
    channel.deliver(queue, request("late", clock));
    cancelled.resolve();
    await drained;
    expect(channel.settled).toEqual(["ack late"]);
  },
);

test("so is one that comes while the node tells the others that it leaves", async () => {
  const { clock, channel, requests, cancelled } = await serving();
  const left = requests.serve(undefined);
  channel.deliver(shared, request("late", clock));
  cancelled.resolve();
  await left;
  await requests.drain();
  expect(channel.settled).toEqual(["ack late"]);
});

test("a request for an action that the node has no longer goes to the shared queue", async () => {
  const { clock, channel } = await serving();
  channel.deliver(targeted, request("other", clock, "work.undo"));
  expect(channel.settled).toEqual(["reject other"]);
});

test("an answer goes where its request wants it, and before the request is acknowledged", async () => {
  const { clock, channel, requests } = await serving();
  channel.deliver(targeted, request("r", clock));
  expect(channel.settled).toEqual([]);
  await requests.drain;
  await clock.step();
  expect(channel.published.map(({ exchange, key, content }) => [exchange, key, String(content)])).toEqual([
    ["", "inbox", "answer to r"],
  ]);
  expect(channel.settled).toEqual(["ack r"]);
});

test("a caller that asks again over a new connection gets the answer there, of the same run", async () => {
  const { clock, channel, finish } = await serving();
  channel.deliver(targeted, request("slow", clock));
  channel.deliver(shared, request("slow", clock, ACTION, "new inbox"));
  await clock.step();
  finish.get("slow")?.();
  await clock.step();
  expect(channel.published.map(({ key }) => key)).toEqual(["new inbox"]);
  expect(channel.settled).toEqual(["ack slow", "ack slow"]);
});

test("an answer made without a connection is sent over the next, before anything is consumed there", async () => {
  const { clock, channel, requests, finish } = await serving();
  channel.deliver(targeted, request("slow", clock));
  requests.detach();
  await clock.step();
  finish.get("slow")?.();
  await clock.step();
  const next = new FakeChannel();
  const attached = requests.attach(next, { nodeID: "node-1", epoch: "f" });
  expect(next.published.map(({ content }) => String(content))).toEqual(["answer to slow"]);
  expect(next.consumers.size).toBe(0);
  await attached;
  expect(next.consumers.size).toBeGreaterThan(0);
  next.deliver(shared, request("slow", clock));
  next.deliver(shared, request("slow", clock, ACTION, "new inbox"));
  expect(next.published.map(({ key }) => key)).toEqual(["inbox", "new inbox"]);
  expect(next.settled).toEqual(["ack slow", "ack slow"]);
});
