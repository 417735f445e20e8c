import { FakeClock, settle } from "../../../testkit/fake-clock.ts";
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

function request(messageId: string, clock: FakeClock, action = ACTION) {
  const headers = { action, by: "instance", at: clock.now(), timeout: 5000 };
  return { messageId, appId: "caller", headers };
}

async function serving() {
  const clock = new FakeClock();
  const channel = new FakeChannel();
  const cancelled = Promise.withResolvers<void>();
  channel.cancelled = cancelled.promise;
  /** Ends the work on a request. */
  const finish = new Map<string, () => void>();
  const requests: RequestConsumer = new RequestConsumer({
    nodeID: seat.nodeID,
    instanceID: "instance-1",
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

/** One that must be tried alone: a group with it has died. */
function suspect(channel: FakeChannel, clock: FakeClock): void {
  const properties = request("suspect", clock);
  const headers = { ...properties.headers, "x-delivery-count": 1 };
  channel.deliver(topology.quarantine(ACTION).name, { ...properties, headers }, true);
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
    [topology.nodeExchange, "caller", "answer to r"],
  ]);
  expect(channel.settled).toEqual(["ack r"]);
});

test("a copy of what runs is not run: both are acknowledged after the one answer", async () => {
  const { clock, channel, finish } = await serving();
  channel.deliver(targeted, request("slow", clock));
  channel.deliver(shared, request("slow", clock));
  await clock.step();
  finish.get("slow")?.();
  await clock.step();
  expect(channel.published.map(({ key }) => key)).toEqual(["caller"]);
  expect(channel.settled).toEqual(["ack slow", "ack slow"]);
});

test("an answer made without a connection is sent over the next, before anything is consumed there", async () => {
  const { clock, channel, requests, finish } = await serving();
  channel.deliver(targeted, request("slow", clock));
  requests.detach();
  await settle();
  finish.get("slow")?.();
  await settle();
  const next = new FakeChannel();
  const attached = requests.attach(next, { nodeID: "node-1", epoch: "f" });
  expect(next.published.map(({ content }) => String(content))).toEqual(["answer to slow"]);
  expect(next.consumers.size).toBe(0);
  await attached;
  expect(next.consumers.size).toBeGreaterThan(0);
  // Its caller may have been away as well.
  next.deliver(shared, request("slow", clock));
  expect(next.published.map(({ content }) => String(content))).toEqual(["answer to slow", "answer to slow"]);
  expect(next.settled).toEqual(["ack slow"]);
  expect(requests.answersKept).toBe(1);
  await clock.advance(5000);
  expect(requests.answersKept).toBe(0);
});

test("a suspect whose group died is tried alone, once its caller agrees and nothing else runs", async () => {
  const { clock, channel, requests, cancelled, finish } = await serving();
  channel.deliver(targeted, request("slow", clock));
  const suspect = request("slow suspect", clock);
  const headers = { ...suspect.headers, "x-delivery-count": 1 };
  channel.deliver(topology.quarantine(ACTION).name, { ...suspect, headers }, true);
  cancelled.resolve();
  await clock.step();
  expect(channel.consumers.has(targeted)).toBe(false);
  expect(channel.consumers.has(shared)).toBe(false);
  expect(channel.published).toEqual([]);
  finish.get("slow")?.();
  await settle();
  const asked = channel.published.at(-1);
  expect(asked).toMatchObject({
    exchange: topology.nodeExchange,
    key: "caller",
    options: { type: "TRIAL", messageId: "slow suspect", appId: "node-1", headers: { by: "instance-1" } },
  });
  expect(finish.has("slow suspect")).toBe(false);
  requests.heard({
    content: Buffer.alloc(0),
    fields: { deliveryTag: 0, redelivered: false },
    properties: { type: "RULING", messageId: "slow suspect", appId: "caller", headers: { ruling: "go" } },
  });
  await settle();
  const payload: { id: string; meta?: { $suspect?: boolean } } = { id: "slow suspect" };
  requests.annotate(payload);
  expect(payload.meta).toEqual({ $suspect: true });
  finish.get("slow suspect")?.();
  await settle();
  expect(channel.settled).toEqual(["ack slow", "ack slow suspect"]);
  expect(channel.consumers.has(targeted)).toBe(true);
});

test("a trial that was asked for over a channel that is gone is taken back over the next, before anything is consumed", async () => {
  const { clock, channel, requests, cancelled } = await serving();
  cancelled.resolve();
  suspect(channel, clock);
  await settle();
  expect(channel.published.at(-1)?.options).toMatchObject({ type: "TRIAL", messageId: "suspect" });
  requests.detach();
  await settle();
  const next = new FakeChannel();
  const attached = requests.attach(next, { nodeID: "node-1", epoch: "f" });
  // Else this process may die of something else, and its caller convict the suspect.
  expect(next.published).toMatchObject([
    {
      key: "caller",
      options: { type: "HERE", messageId: "suspect", headers: { by: "instance-1", has: false, number: 0 } },
    },
  ]);
  expect(next.consumers.size).toBe(0);
  await attached;
});

test("a caller that does not answer is told that the trial has not begun, and nothing else begins before RabbitMQ has that", async () => {
  const { clock, channel, cancelled } = await serving();
  cancelled.resolve();
  suspect(channel, clock);
  await settle();
  const read = Promise.withResolvers<void>();
  channel.flush = () => read.promise;
  await clock.advance(2000);
  expect(channel.published.at(-1)?.options).toMatchObject({ type: "HERE", headers: { has: false } });
  expect(channel.consumers.has(targeted)).toBe(false);
  read.resolve();
  await settle();
  expect(channel.consumers.has(targeted)).toBe(true);
});

test("a caller's go that comes when nobody waits for it is taken back", async () => {
  const { clock, channel, requests, cancelled } = await serving();
  cancelled.resolve();
  suspect(channel, clock);
  await settle();
  requests.detach();
  await settle();
  const next = new FakeChannel();
  await requests.attach(next, { nodeID: "node-1", epoch: "f" });
  const before = next.published.length;
  for (const ruling of ["wait", "go"] as const) {
    requests.heard({
      content: Buffer.alloc(0),
      fields: { deliveryTag: 0, redelivered: false },
      properties: { type: "RULING", messageId: "suspect", appId: "caller", headers: { ruling } },
    });
  }
  expect(next.published.slice(before)).toMatchObject([
    { options: { type: "HERE", messageId: "suspect", headers: { has: false } } },
  ]);
});

test("a node whose hands are full takes nothing from the shared queue", async () => {
  const { clock, channel, cancelled, finish } = await serving();
  cancelled.resolve();
  for (let i = 0; i < 8; i++) channel.deliver(targeted, request(`slow-${i}`, clock));
  await settle();
  expect(channel.consumers.has(shared)).toBe(false);
  expect(channel.consumers.has(targeted)).toBe(true);
  for (let i = 0; i < 5; i++) finish.get(`slow-${i}`)?.();
  await settle();
  expect(channel.consumers.has(shared)).toBe(true);
});

test("what comes beyond the budget waits here until something ends", async () => {
  const { clock, channel, requests, finish } = await serving();
  for (let i = 0; i < 10; i++) channel.deliver(i % 2 ? targeted : shared, request(`slow-${i}`, clock));
  await settle();
  expect(finish.size).toBe(8);
  expect(requests.inFlight).toBe(10);
  finish.get("slow-0")?.();
  await settle();
  expect(finish.size).toBe(9);
});

test("what waits here when a trial is to begin runs before it, within the budget", async () => {
  const { clock, channel, cancelled, finish } = await serving();
  for (let i = 0; i < 12; i++) channel.deliver(i % 2 ? targeted : shared, request(`slow-${i}`, clock));
  suspect(channel, clock);
  cancelled.resolve();
  await settle();
  expect(finish.size).toBe(8);
  for (let i = 0; i < 12; i++) {
    expect(channel.published.some(({ options }) => options.type === "TRIAL")).toBe(false);
    finish.get(`slow-${i}`)?.();
    await settle();
    expect(finish.size).toBe(Math.min(12, 9 + i));
  }
  expect(channel.published.at(-1)?.options.type).toBe("TRIAL");
});

test("an answer that comes back is sent again until its caller has an inbox, and a drain waits for that", async () => {
  const { clock, channel, requests, cancelled } = await serving();
  cancelled.resolve();
  channel.deliver(shared, request("one", clock));
  await settle();
  const [, first] = channel.published;
  expect(first?.options).toMatchObject({ type: "RES", mandatory: true });
  channel.published.splice(0, 1);
  const back = { fields: { deliveryTag: 0, redelivered: false }, content: first?.content ?? Buffer.of() };
  requests.returned({ ...back, properties: { headers: first?.options.headers } });

  let drained = false;
  const draining = requests.drain().then(() => {
    drained = true;
  });
  await clock.advance(400);
  expect([channel.published.length, drained]).toEqual([1, false]);
  await clock.advance(200);
  expect(channel.published.map(({ key, content }) => [key, content.toString()])).toEqual([
    ["caller", "answer to one"],
    ["caller", "answer to one"],
  ]);
  await clock.advance(1000);
  await draining;

  // Given up after ten seconds: the caller is gone for good.
  requests.returned({
    ...back,
    properties: { headers: { ...channel.published[1]?.options.headers, returnedAt: -10_001 } },
  });
  await clock.advance(1000);
  expect(channel.published).toHaveLength(2);
});
