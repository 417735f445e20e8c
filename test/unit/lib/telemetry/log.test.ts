import { stripVTControlCharacters } from "node:util";
import { jsonLine, textLine } from "../../../../lib/telemetry/log.ts";

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

test("what others chose forges no line for machines, and moves no cursor", () => {
  const [line] = jsonLine("warn", ["Lost", { peer: "a\n{}\u009b2J\u2028\u202eb" }], BINDINGS);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  expect(line).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u2028\u202e]/);
  expect(JSON.parse(line)).toMatchObject({ peer: "a\n{}\u009b2J\u2028\u202eb" });
});

describe("a line for people", () => {
  const text = (...args: unknown[]) => {
    const [line, ...more] = textLine("warn", args, BINDINGS);
    expect(more).toEqual([]);
    return stripVTControlCharacters(line).replace(/^\[[\d:.]+Z\]/, "[time]");
  };

  test("has level, module, message and values", () => {
    expect(text("Lost", { peer: "a", ms: 3 }, 5, "again")).toBe(
      "[time] WARN  GATEWAY: Lost { peer: 'a', ms: 3 } 5 again",
    );
  });

  test("is one line, whatever a service is called", () => {
    const name = "cat\n[12:00:00.000Z] INFO  GATEWAY: all is well\u001b[2K\r\u009bA\u2028\u202e";
    expect(text(`Service '${name}' started`, { name })).toBe(
      "[time] WARN  GATEWAY: Service 'cat\\n[12:00:00.000Z] INFO  GATEWAY: all is well\\u001b[2K\\u000d\\u009bA\\u2028\\u202e' started " +
        String.raw`{ name: 'cat\n[12:00:00.000Z] INFO  GATEWAY: all is well\x1B[2K\r\x9BA\u2028\u202e' }`,
    );
  });

  test("shows an error's stack, of which no line can be taken for an entry", () => {
    const error = new Error("broken\n[12:00:00.000Z] INFO  GATEWAY: all is well\u001b[2K");
    const lines = text("Asking failed", error, { cause: error }).split("\n");
    expect(lines.length).toBeGreaterThan(3);
    for (const line of lines.slice(1)) expect(line).toMatch(/^ {4}/);
    expect(lines.join()).not.toContain("\u001b");
    expect(lines.join()).toContain("log.test.ts");
  });
});
