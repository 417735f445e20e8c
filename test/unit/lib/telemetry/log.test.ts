import { jsonLine } from "../../../../lib/telemetry/log.ts";

const BINDINGS = { nodeID: "node-1", ns: "dl", mod: "gateway" };

function entry(...args: unknown[]): Record<string, unknown> {
  const [line, ...more] = jsonLine("info", args, BINDINGS);
  expect(more).toEqual([]);
  expect(line).not.toContain("\n");
  return JSON.parse(line) as Record<string, unknown>;
}

test("a message and its values are one object, each value a field", () => {
  expect(entry("Request", { status: 200, models: ["cat"], timing: { ms: 3 } })).toEqual({
    time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
    level: "info",
    msg: "Request",
    ...BINDINGS,
    status: 200,
    models: ["cat"],
    timing: { ms: 3 },
  });
});

test("an error is a field with its stack, on one line", () => {
  const error = Object.assign(new RangeError("too\nmuch"), { code: 503, type: "QUEUE_FULL" });
  expect(entry("Request failed", { requestId: "1" }, error)).toMatchObject({
    msg: "Request failed",
    requestId: "1",
    error: {
      name: "RangeError",
      message: "too\nmuch",
      code: 503,
      type: "QUEUE_FULL",
      stack: expect.stringContaining("log.test.ts"),
    },
  });
});

test("an error logged alone is its own message, one inside a value keeps its words", () => {
  expect(entry(new Error("broken"))).toMatchObject({ msg: "broken", error: { message: "broken" } });
  expect(entry("Lost", { cause: new Error("cut") })).toMatchObject({ cause: { message: "cut" } });
});

test("a field cannot pass for the line's own", () => {
  expect(entry("Moved", { level: 3, nodeID: "other", msg: "x" })).toMatchObject({
    level: "info",
    level_: 3,
    nodeID: "node-1",
    nodeID_: "other",
    msg: "Moved",
    msg_: "x",
  });
});

test("several words are one message", () => {
  expect(entry("Got", 3, ["a", "b"], undefined)).toMatchObject({ msg: "Got 3 [ 'a', 'b' ] undefined" });
});

test("what JSON has no form for does not break the line", () => {
  const loop: Record<string, unknown> = {};
  loop["self"] = loop;
  expect(entry("Odd", { loop, big: 12n })).toMatchObject({ msg: "Odd", big: "12" });
  expect(entry("Odd", { big: 12n, pixels: new Uint8Array(5), set: new Set([1]) })).toMatchObject({
    big: "12",
    pixels: "5 bytes",
    set: [1],
  });
});
