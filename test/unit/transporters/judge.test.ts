import { FakeClock } from "../../../testkit/fake-clock.ts";
import { Judge } from "../../../transporters/judge.ts";
import type { Message } from "../../../transporters/ports.ts";
import { Topology } from "../../../transporters/topology.ts";
import { FakeChannel } from "./fake-channel.ts";

function court() {
  const clock = new FakeClock();
  const channel = new FakeChannel();
  const convicted: string[] = [];
  const waiting = new Set(["r"]);
  const judge = new Judge({
    nodeID: "caller",
    clock,
    topology: new Topology("MOL-test"),
    waitsFor: (id) => waiting.has(id),
    convict: (id) => convicted.push(id),
  });
  judge.resume(channel);
  const message = (type: string, node: string, headers: object): Message => ({
    content: Buffer.alloc(0),
    fields: { deliveryTag: 0, redelivered: false },
    properties: { type, messageId: "r", appId: node, headers: { ...headers } },
  });
  return {
    clock,
    judge,
    convicted,
    waiting,
    /** What a process is told that asks to try the request. */
    ask(node: string, instance: string) {
      judge.asked(message("TRIAL", node, { by: instance }));
      const ruling = channel.published.findLast(({ options }) => options.type === "RULING");
      expect(ruling?.key).toBe(node);
      return ruling?.options.headers?.["ruling"];
    },
    /** A question that may come late, and the end of one. */
    question: (number: number) => judge.asked(message("TRIAL", "a", { by: "a1", number })),
    takeBack: (number: number) => judge.heard(message("HERE", "a", { by: "a1", has: false, number })),
    rulings: () => channel.published.filter(({ options }) => options.type === "RULING").length,
    here: (instance: string, has: boolean) => judge.heard(message("HERE", "a", { by: instance, has })),
    probes: () => channel.published.filter(({ options }) => options.type === "PROBE").map(({ key }) => key),
    gone: () => judge.returned(message("PROBE", "caller", {})),
    reconnect: () => judge.resume(new FakeChannel()),
  };
}

test("a first trial may begin; one of a request that nobody waits for need not", () => {
  const { ask, waiting } = court();
  expect(ask("a", "a1")).toBe("go");
  waiting.clear();
  expect(ask("b", "b1")).toBe("drop");
});

test("a process that was started anew under its name proves the death of the one before", () => {
  const { ask, judge, convicted } = court();
  ask("a", "a1");
  expect(ask("b", "b1")).toBe("wait");
  judge.peerIs("a", "a2");
  expect(ask("b", "b1")).toBe("poison");
  expect(convicted).toEqual(["r"]);
});

test("so does the new process itself, when it asks", () => {
  const { ask } = court();
  ask("a", "a1");
  expect(ask("a", "a2")).toBe("poison");
});

test("one that only lost its connection is still at it: the other waits", async () => {
  const { ask, clock, here, probes, convicted } = court();
  ask("a", "a1");
  for (let i = 0; i < 100; i++) {
    expect(ask("b", "b1")).toBe("wait");
    here("a1", true);
    await clock.advance(500);
  }
  expect(new Set(probes())).toEqual(new Set(["a1"]));
  expect(convicted).toEqual([]);
});

test("one that lives and has it no more has not died of it", () => {
  const { ask, here } = court();
  ask("a", "a1");
  ask("b", "b1");
  here("a1", false);
  expect(ask("b", "b1")).toBe("go");
});

test("one that is without a connection for long is taken for dead, unless it comes back", async () => {
  const { ask, clock, judge, here, gone } = court();
  ask("a", "a1");
  ask("b", "b1");
  gone();
  await clock.advance(8999);
  expect(ask("b", "b1")).toBe("wait");
  here("a1", true);
  await clock.advance(1);
  expect(ask("b", "b1")).toBe("wait");
  gone();
  await clock.advance(9000);
  expect(ask("b", "b1")).toBe("poison");
  expect(judge.size).toBe(1);
});

test("one that is silent for long is taken for dead", async () => {
  const { ask, clock } = court();
  ask("a", "a1");
  expect(ask("b", "b1")).toBe("wait");
  await clock.advance(14_999);
  expect(ask("b", "b1")).toBe("wait");
  await clock.advance(1);
  expect(ask("b", "b1")).toBe("poison");
});

test("a caller that was away knows of no trial: what it missed may have ended well", () => {
  const { ask, judge, reconnect } = court();
  ask("a", "a1");
  reconnect();
  judge.peerIs("a", "a2");
  expect(judge.size).toBe(0);
});

test("a question that comes after it was taken back allows nothing: who asked it may have died of something else", () => {
  const { question, takeBack, rulings, ask, convicted } = court();
  takeBack(3);
  question(3);
  expect(rulings()).toBe(0);
  expect(ask("b", "b1")).toBe("go");
  question(4);
  expect(rulings()).toBe(2);
  expect(convicted).toEqual([]);
});
