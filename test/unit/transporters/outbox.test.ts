import { Outbox, type Outgoing } from "../../../transporters/outbox.ts";
import type { Channel } from "../../../transporters/ports.ts";

function request(id: string, bytes = 10): Outgoing {
  const body = Buffer.alloc(bytes);
  return { id, action: "work.do", target: "n", pinned: false, body, at: 0, timeout: 1 };
}

const channel = {} as Channel;
const next = {} as Channel;
const idsUnsentOn = (outbox: Outbox, on: Channel) => Array.from(outbox.unsentOn(on), ({ id }) => id);

test("what one channel carried counts as lost with it", () => {
  const outbox = new Outbox(100);
  const [a, b] = [request("a"), request("b")];
  outbox.add(a);
  outbox.add(b);
  a.sent = { on: channel, at: 0, seat: { nodeID: "n", epoch: "" } };
  expect(idsUnsentOn(outbox, channel)).toEqual(["b"]);
  expect(idsUnsentOn(outbox, next)).toEqual(["a", "b"]);
});

test("an answered request is not sent again", () => {
  const outbox = new Outbox(100);
  outbox.add(request("a"));
  outbox.delete("a");
  outbox.delete("never there");
  expect(idsUnsentOn(outbox, channel)).toEqual([]);
  expect(outbox.size).toBe(0);
});

test("it holds as many bytes as it may, and answers make room", () => {
  const outbox = new Outbox(100);
  expect(outbox.add(request("a", 60))).toBe(true);
  expect(outbox.add(request("b", 41))).toBe(false);
  expect(outbox.add(request("c", 40))).toBe(true);
  outbox.delete("a");
  expect(outbox.add(request("d", 60))).toBe(true);
  expect(outbox.add(request("e", 1))).toBe(false);
});

test("the same request twice takes its room once", () => {
  const outbox = new Outbox(100);
  outbox.add(request("a", 40));
  outbox.add(request("a", 40));
  outbox.delete("a");
  expect(outbox.add(request("b", 100))).toBe(true);
});
