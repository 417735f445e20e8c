import { judge, MAX_ATTEMPTS, readDelivery, type Source } from "../../../transporters/delivery.ts";
import type { Message } from "../../../transporters/ports.ts";

const STEAL_AFTER_MS = 500;

function message(headers: object = {}, redelivered = false, properties: object = {}): Message {
  return {
    content: Buffer.alloc(0),
    fields: { redelivered, deliveryTag: 1, exchange: "", routingKey: "", consumerTag: "" },
    properties: {
      messageId: "id",
      replyTo: "inbox",
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
    replyTo: "inbox",
    headers: { action: "work.do", by: "instance", at: 10.5, timeout: 1000 },
    priorAttempts: 0,
    redelivered: false,
    late: false,
  });
});

test.each([
  ["no ID", { messageId: undefined }],
  ["no caller", { appId: undefined }],
  ["nowhere to answer to", { replyTo: undefined }],
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

describe("a request's way through its deaths", () => {
  test.each<[string, Source, object, boolean, string]>([
    ["first delivery", "targeted", {}, false, "run"],
    ["its node came back and got it again", "targeted", {}, true, "quarantine"],
    ["stolen", "shared", death("expired", 9000), false, "run"],
    ["no such node", "shared", {}, false, "run"],
    ["the thief died", "shared", { ...death("expired", 9000), "x-delivery-count": 1 }, true, "quarantine"],
    ["suspect, tried once before", "quarantine", { attempts: 1 }, false, "alone"],
    ["suspect, tried twice before", "quarantine", { attempts: 2 }, false, "alone"],
    ["suspect, its second time here", "quarantine", { attempts: 1, "x-delivery-count": 1 }, true, "alone"],
    ["suspect, third death", "quarantine", { attempts: 2, "x-delivery-count": 1 }, true, "dead"],
    ["suspect after three lost connections", "quarantine", { attempts: 3 }, false, "alone"],
    ["and its next death", "quarantine", { attempts: 3, "x-delivery-count": 1 }, true, "dead"],
    ["for this node only", "pinned", {}, false, "run"],
    ["for this node only, which died of it", "pinned", {}, true, "dead"],
  ])("%s", (_, source, headers, redelivered, verdict) => {
    expect(judge(read(source, headers, redelivered))).toBe(verdict);
  });

  test("is never longer than the limit, whatever route it takes", () => {
    const routes: [Source, object][] = [
      ["targeted", {}],
      ["shared", {}],
      ["shared", death("expired", 9000)],
    ];
    for (const [source, headers] of routes) {
      // A stolen request may have been tried by the chosen node.
      let tried = "x-death" in headers ? 1 : 0;
      expect(judge(read(source, headers))).toBe("run");
      tried++;
      const suspect = read(source, { ...headers, "x-delivery-count": 1 }, true);
      expect(judge(suspect)).toBe("quarantine");
      let count = 0;
      const inQuarantine = () =>
        judge(read("quarantine", { attempts: suspect.priorAttempts, "x-delivery-count": count }, count > 0));
      while (inQuarantine() === "alone") {
        tried++;
        count++;
      }
      expect(inQuarantine()).toBe("dead");
      expect(tried).toBe(MAX_ATTEMPTS);
    }
  });
});
