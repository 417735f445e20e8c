import type { Channel, ConsumeMessage } from "amqplib";
import { Complaints } from "../../../transporters/complaints.ts";
import { MessageAge } from "../../../transporters/message-age.ts";
import { settings } from "../../../transporters/options.ts";
import { RequestConsumer } from "../../../transporters/request-consumer.ts";
import { Topology } from "../../../transporters/topology.ts";

const ACTION = "work.do";
const topology = new Topology("MOL-test.v1", settings({ url: "amqp://rabbit" }));

/** A channel whose consumers are cancelled when the test says so. */
class FakeChannel {
  readonly settled: string[] = [];
  readonly cancelled = Promise.withResolvers<void>();
  readonly #consumers = new Map<string, (message: ConsumeMessage) => void>();

  async prefetch() {}
  async assertQueue() {}
  async bindQueue() {}

  async consume(queue: string, onMessage: (message: ConsumeMessage) => void) {
    this.#consumers.set(queue, onMessage);
    return { consumerTag: queue };
  }

  cancel(): Promise<void> {
    return this.cancelled.promise;
  }

  ack({ properties }: ConsumeMessage) {
    this.settled.push(`ack ${properties.messageId}`);
  }

  nack({ properties }: ConsumeMessage, _: boolean, requeue: boolean) {
    this.settled.push(`${requeue ? "requeue" : "reject"} ${properties.messageId}`);
  }

  deliver(queue: string, messageId: string, action = ACTION): void {
    const headers = { by: "caller", at: performance.now(), timeout: 5000 };
    this.#consumers.get(queue)?.({
      content: Buffer.from(messageId),
      fields: { redelivered: false },
      properties: { messageId, replyTo: "caller", type: action, headers },
    } as unknown as ConsumeMessage);
  }
}

async function serving() {
  const channel = new FakeChannel();
  const requests: RequestConsumer = new RequestConsumer(
    {
      nodeID: "node-1",
      stealAfterMs: 500,
      topology,
      age: new MessageAge(),
      complaints: new Complaints({ warn() {} }),
      observe() {},
      answer() {},
      fail() {},
      handle: async (body) => requests.annotate({ id: body.toString() }),
    },
    8,
  );
  await requests.attach(channel as unknown as Channel);
  await requests.serve([ACTION]);
  return { channel, requests };
}

test.each(["shared", "targeted"] as const)(
  "a request that comes from the %s queue while the node begins to drain is run, not given back",
  async (source) => {
    const { channel, requests } = await serving();
    const drained = requests.drain();
    channel.deliver(
      source === "shared" ? topology.shared(ACTION).name : topology.targeted("node-1").name,
      "late",
    );
    channel.cancelled.resolve();
    await drained;
    expect(channel.settled).toEqual(["ack late"]);
  },
);

test("so is one that comes while the node tells the others that it leaves", async () => {
  const { channel, requests } = await serving();
  const left = requests.serve(undefined);
  channel.deliver(topology.shared(ACTION).name, "late");
  channel.cancelled.resolve();
  await left;
  await requests.drain();
  expect(channel.settled).toEqual(["ack late"]);
});

test("a request for an action that the node has no longer goes to the shared queue", async () => {
  const { channel } = await serving();
  channel.deliver(topology.targeted("node-1").name, "other", "work.undo");
  expect(channel.settled).toEqual(["reject other"]);
});
