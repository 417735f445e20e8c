import {
  modelName,
  modelsOf,
  noStoreOf,
  requestIdOf,
  timeoutOf,
  traceparentOf,
} from "../../../../lib/http/request.ts";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

function codeOf(work: () => unknown): unknown {
  try {
    work();
  } catch (error) {
    return (error as { type?: unknown }).type;
  }
  return "nothing thrown";
}

describe("requestIdOf", () => {
  test.each(["a", "order-7.retry_2", "x".repeat(128)])("keeps the sane id %p", (id) => {
    expect(requestIdOf({ "x-request-id": id })).toBe(id);
  });

  test.each(["", "x".repeat(129), "a b", "a\nb", "<script>", "é"])("replaces %p by a UUID", (id) => {
    expect(requestIdOf({ "x-request-id": id })).toMatch(UUID);
  });

  test("makes a new id for each request without one", () => {
    expect(requestIdOf({})).not.toBe(requestIdOf({}));
  });
});

describe("traceparentOf", () => {
  const valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

  test("passes a valid trace context on as it came", () => {
    expect(traceparentOf({ traceparent: valid })).toBe(valid);
  });

  test.each([
    valid.replace("00-", "ff-"),
    valid.replace(/-0af\w+/, `-${"0".repeat(32)}`),
    valid.replace(/-b7\w+/, `-${"0".repeat(16)}`),
    valid.toUpperCase(),
    `${valid}-more`,
    "",
  ])("ignores %p", (traceparent) => {
    expect(traceparentOf({ traceparent })).toBeUndefined();
  });
});

describe("timeoutOf", () => {
  const options = { defaultTimeoutMs: 10_000, maxTimeoutMs: 60_000 };

  test("is the default when the client names none", () => {
    expect(timeoutOf({}, options)).toBe(10_000);
  });

  test("is what the client names, up to the maximum", () => {
    expect(timeoutOf({ "x-request-timeout-ms": "250" }, options)).toBe(250);
    expect(timeoutOf({ "x-request-timeout-ms": "60001" }, options)).toBe(60_000);
    expect(timeoutOf({ "x-request-timeout-ms": "9".repeat(400) }, options)).toBe(60_000);
  });

  test.each(["", "0", "000", "-1", "1.5", "1e3", "soon", "5 s", "0x10"])("refuses %p", (given) => {
    expect(codeOf(() => timeoutOf({ "x-request-timeout-ms": given }, options))).toBe("BAD_REQUEST");
  });
});

describe("noStoreOf", () => {
  test.each([
    ["no-store", true],
    ["max-age=0, No-Store", true],
    ["no-cache", false],
    ["x-no-store", false],
    [undefined, false],
  ])("of Cache-Control %p is %p", (value, expected) => {
    expect(noStoreOf(value === undefined ? {} : { "cache-control": value })).toBe(expected);
  });
});

describe("modelsOf", () => {
  test("is undefined without the parameter: all models", () => {
    expect(modelsOf("/api/classify", 32)).toBeUndefined();
    expect(modelsOf("/api/classify?model=a&x=models", 32)).toBeUndefined();
  });

  test("merges repeated parameters and drops repeated names, in their order", () => {
    expect(modelsOf("/api/classify?models=b,a&models=b&models=%20c", 32)).toEqual(["b", "a", "c"]);
  });

  test("counts names, not their repetitions, against the limit", () => {
    expect(modelsOf(`/?models=${"a,".repeat(1000)}a`, 1)).toEqual(["a"]);
  });

  test.each(["models=", "models", "models=a,,b", "models=a&models=", "models=,"])("refuses ?%s", (query) => {
    expect(codeOf(() => modelsOf(`/api/classify?${query}`, 32))).toBe("BAD_REQUEST");
  });

  test("refuses more names than the limit", () => {
    const names = Array.from({ length: 33 }, (_, index) => `m${index}`);
    expect(codeOf(() => modelsOf(`/?models=${names.join()}`, 32))).toBe("BAD_REQUEST");
    expect(modelsOf(`/?models=${names.slice(1).join()}`, 32)).toHaveLength(32);
  });
});

describe("modelName", () => {
  test.each(["resnet-cat", "v2.resnet", "9", "a".repeat(64)])("lets %p pass", (name) => {
    expect(modelName(name)).toBe(name);
  });

  test.each(["", "../", "..", "$node", "A", "a/b", "a b", "-a", "a".repeat(65), "__proto__"])(
    "knows that no model is called %p",
    (name) => {
      expect(codeOf(() => modelName(name))).toBe("MODEL_NOT_FOUND");
    },
  );
});
