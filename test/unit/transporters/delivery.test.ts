import { readDelivery, type Source } from "../../../transporters/delivery.ts";
import type { Message } from "../../../transporters/ports.ts";

const STEAL_AFTER_MS = 500;

function message(headers: object = {}, redelivered = false, properties: object = {}): Message {
  return {
    content: Buffer.alloc(0),
    fields: { redelivered, deliveryTag: 1, exchange: "", routingKey: "", consumerTag: "" },
    properties: {
      messageId: "id",
      appId: "caller",
      headers: { action: "work.do", by: "instance", at: 10.5, timeout: 1000, ...headers },
      ...properties,
    },
  } as Message;
}

function read(source: Source, headers: object = {}, redelivered = false) {
  const delivery = readDelivery(source, message(headers, redelivered));
  if (!delivery) throw new Error("unreadable");
  return delivery;
}

function death(reason: string, expiration: number) {
  return {
    "x-death": [
      {
        reason,
        "original-expiration": String(expiration),
        queue: `MOL.REQX.node%40x.${STEAL_AFTER_MS}`,
        count: 1,
      },
    ],
  };
}

test("a delivery says who asks for what, without its body", () => {
  expect(read("targeted")).toEqual({
    source: "targeted",
    id: "id",
    sender: "caller",
    headers: { action: "work.do", by: "instance", at: 10.5, timeout: 1000, attempts: 0 },
    unanswered: 0,
    late: false,
  });
});

test.each([
  ["no ID", { messageId: undefined }],
  ["no caller", { appId: undefined }],
  ["no action", { headers: { by: "x", at: 1, timeout: 1 } }],
  ["no headers", { headers: undefined }],
  ["a time that is none", { headers: { action: "a", by: "x", at: "now", timeout: 1 } }],
  ["a deadline that is none", { headers: { action: "a", by: "x", at: 1, timeout: Number.NaN } }],
])("a message with %s is no request", (_, properties) => {
  expect(readDelivery("targeted", message({}, false, properties))).toBeUndefined();
});

describe("a request left the chosen node's queue", () => {
  test("late, if its own deadline was over by then", () => {
    expect(read("shared", death("expired", 300)).late).toBe(true);
    expect(read("shared", death("expired", STEAL_AFTER_MS)).late).toBe(true);
  });

  test("for another node, if it had time left or was crowded out", () => {
    expect(read("shared", death("expired", STEAL_AFTER_MS + 1)).late).toBe(false);
    expect(read("shared", death("maxlen", 300)).late).toBe(false);
    expect(read("shared").late).toBe(false);
  });
});

test.each<[string, Source, object, boolean, number]>([
  ["a first delivery", "targeted", {}, false, 0],
  ["one that was stolen", "shared", death("expired", 9000), false, 0],
  ["one whose thief died", "shared", { "x-delivery-count": 1 }, true, 1],
  ["a suspect", "quarantine", { attempts: 2 }, false, 0],
  ["a suspect whose trials did not end", "quarantine", { attempts: 2, "x-delivery-count": 3 }, true, 3],
  ["one of a queue that does not count", "targeted", {}, true, 1],
])("%s was delivered without an answer %#", (_, source, headers, redelivered, unanswered) => {
  expect(read(source, headers, redelivered).unanswered).toBe(unanswered);
});
