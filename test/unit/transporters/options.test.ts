import { redact, settings } from "../../../transporters/options.ts";

const url = "amqp://user:secret@rabbit:5673/models?heartbeat=5";

describe("settings", () => {
  test("fill in what is documented", () => {
    expect(settings({ url })).toMatchObject({
      urls: [url],
      prefetch: 32,
      stealAfterMs: 500,
      maxDeadlineMs: 60_000,
      maxPendingBytes: 268_435_456,
      heartbeatSeconds: 2,
    });
  });

  test("take several addresses, as a list or in one string", () => {
    expect(settings({ url: "amqp://a;amqps://b" }).urls).toEqual(["amqp://a", "amqps://b"]);
    expect(settings({ url: ["amqp://a", "amqps://b"] }).urls).toEqual(["amqp://a", "amqps://b"]);
  });

  test("refuse a prefetch that cannot keep the node's batches full", () => {
    expect(() => settings({ url, prefetch: 15, minPrefetch: 16 })).toThrow(
      "Expected an integer of at least 16 for prefetch but received 15 of type number",
    );
  });

  test("raise the default prefetch to what the node's batches need", () => {
    expect(settings({ url, minPrefetch: 64 }).prefetch).toBe(64);
  });

  test.each([
    ["stealAfterMs", 0],
    ["stealAfterMs", 1.5],
    ["maxDeadlineMs", 0],
    ["maxPendingBytes", Number.NaN],
    ["heartbeatSeconds", "2"],
  ])("refuse %s = %p", (name, value) => {
    expect(() => settings({ url, [name]: value })).toThrow(
      new RegExp(`^Expected an integer of at least \\d+ for ${name} but received ${value} of type`),
    );
  });

  test.each(["", ";", "http://user:secret@rabbit", "not an address with user:secret@rabbit"])(
    "refuse the address %p without showing its password",
    (bad) => {
      expect(() => settings({ url: bad })).toThrow(/^Expected amqp:\/\/ or amqps:\/\/ addresses for url/);
      expect(() => settings({ url: bad })).not.toThrow(/secret/);
    },
  );
});

test("an address in a log has host, port and virtual host, not user, password and options", () => {
  expect(redact(url)).toBe("amqp://rabbit:5673/models");
});
