import { Readable } from "node:stream";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { type BodyForm, bodyForm, readInputs } from "../../../../lib/http/body.ts";
import { image } from "../../../../lib/kinds/image/kind.ts";
import { eventually } from "../../../../testkit/eventually.ts";
import { form, type Part } from "../../../../testkit/http.ts";

const limits = {
  maxBytes: 100,
  maxInputs: 3,
  timeoutMs: 60_000,
  minBodyRate: { bytes: 1, everyMs: 60_000 },
};
const MULTIPART = { "content-type": "multipart/form-data; boundary=a-boundary" };

/** A body that arrives in these chunks. */
function arriving(chunks: readonly (Uint8Array | string)[], headers: Record<string, string>) {
  const stream = Readable.from(
    chunks.map((chunk) => Buffer.from(chunk)),
    { objectMode: false },
  );
  return Object.assign(stream, { headers });
}

async function read(
  shape: BodyForm,
  chunks: readonly (Uint8Array | string)[],
  headers: Record<string, string> = {},
) {
  const inputs = await readInputs(arriving(chunks, headers), shape, image, limits, () => {});
  return inputs.map(({ bytes }) => Buffer.from(bytes).toString());
}

function readForm(parts: readonly Part[]) {
  const { body, headers } = form(parts);
  return read("form", [body], headers);
}

function refused(code: string) {
  return expect.objectContaining({ type: code });
}

function formOf(headers: Record<string, string>): unknown {
  try {
    return bodyForm(headers, image, limits);
  } catch (error) {
    return (error as { type?: unknown }).type;
  }
}

describe("bodyForm", () => {
  test.each<[string, Record<string, string>]>([
    ["form", { ...MULTIPART, "content-length": "10" }],
    ["form", { "content-type": 'Multipart/Form-Data; charset=x; boundary="a b"', "content-length": "10" }],
    ["raw", { "content-type": "image/jpeg", "transfer-encoding": "chunked" }],
    ["raw", { "content-type": "IMAGE/PNG; q=1", "content-length": "100" }],
    ["BAD_REQUEST", { "content-type": "image/jpeg" }],
    ["BAD_REQUEST", { "content-type": "image/jpeg", "content-length": "0" }],
    ["BAD_REQUEST", {}],
    ["BAD_REQUEST", { "content-type": "multipart/form-data", "content-length": "10" }],
    ["BAD_REQUEST", { "content-type": "multipart/form-data; boundary=", "content-length": "10" }],
    ["BAD_REQUEST", { "content-type": 'multipart/form-data; boundary=""', "content-length": "10" }],
    [
      "BAD_REQUEST",
      { "content-type": `multipart/form-data; boundary=${"b".repeat(71)}`, "content-length": "10" },
    ],
    ["UNSUPPORTED_MEDIA_TYPE", { "content-length": "10" }],
    ["UNSUPPORTED_MEDIA_TYPE", { "content-type": "application/json", "content-length": "10" }],
    ["UNSUPPORTED_MEDIA_TYPE", { "content-type": "image/svg+xml", "content-length": "10" }],
    ["UNSUPPORTED_MEDIA_TYPE", { "content-type": "multipart/mixed; boundary=b", "content-length": "10" }],
    [
      "UNSUPPORTED_MEDIA_TYPE",
      { "content-type": "image/png", "content-encoding": "gzip", "content-length": "10" },
    ],
    ["PAYLOAD_TOO_LARGE", { "content-type": "image/png", "content-length": "101" }],
    ["PAYLOAD_TOO_LARGE", { ...MULTIPART, "content-length": "1000000" }],
  ])("is %s for %j", (expected, headers) => {
    expect(formOf(headers)).toBe(expected);
  });
});

describe("a raw body", () => {
  test("is the image, however it is cut", async () => {
    await expect(read("raw", ["ab", "c", "def"])).resolves.toEqual(["abcdef"]);
  });

  test("may have as many bytes as an image and not one more", async () => {
    await expect(read("raw", ["x".repeat(60), "x".repeat(40)])).resolves.toEqual(["x".repeat(100)]);
    await expect(read("raw", ["x".repeat(60), "x".repeat(41)])).rejects.toEqual(refused("PAYLOAD_TOO_LARGE"));
  });

  test("without bytes is refused", async () => {
    await expect(read("raw", [])).rejects.toEqual(refused("BAD_REQUEST"));
  });
});

describe("a form", () => {
  test("gives every part called image, in order, and nothing else", async () => {
    const parts = [
      { bytes: "one" },
      { name: "other", bytes: "two" },
      { name: "note", file: "", bytes: "three" },
    ];
    await expect(readForm([...parts, { bytes: "four" }])).resolves.toEqual(["one", "four"]);
  });

  test("is read the same when it arrives byte by byte", async () => {
    const { body, headers } = form([{ bytes: "one" }, { bytes: "\r\n--a-boundar\r\n" }]);
    const bytes = [...body].map((byte) => Uint8Array.of(byte));
    await expect(read("form", bytes, headers)).resolves.toEqual(["one", "\r\n--a-boundar\r\n"]);
  });

  test("takes an image without a file name", async () => {
    await expect(readForm([{ file: "", bytes: "one" }])).resolves.toEqual(["one"]);
  });

  test.each<[string, Part[]]>([
    ["no part", []],
    ["no part called image", [{ name: "photo", bytes: "one" }]],
    ["an empty image", [{ bytes: "one" }, { bytes: "" }]],
  ])("with %s is refused", async (_, parts) => {
    await expect(readForm(parts)).rejects.toEqual(refused("BAD_REQUEST"));
  });

  test("may hold as many images as the limit, each as large as the limit", async () => {
    const bytes = "x".repeat(100);
    await expect(readForm([{ bytes }, { bytes }, { bytes }])).resolves.toHaveLength(3);
    await expect(readForm([{ bytes }, { bytes: `${bytes}x` }])).rejects.toEqual(refused("PAYLOAD_TOO_LARGE"));
    await expect(readForm([{ bytes }, { bytes }, { bytes }, { bytes }])).rejects.toEqual(
      refused("PAYLOAD_TOO_LARGE"),
    );
  });

  test("with too many fields is refused", async () => {
    const fields = Array.from({ length: 20 }, () => ({
      name: "note",
      file: "",
      type: "text/plain",
      bytes: "x",
    }));
    await expect(readForm([{ bytes: "one" }, ...fields])).rejects.toEqual(refused("PAYLOAD_TOO_LARGE"));
  });

  test("that never says where a part begins is refused once it is longer than any form may be", async () => {
    const endless = Array.from({ length: 100 }, () => "y".repeat(10_000));
    await expect(read("form", endless, MULTIPART)).rejects.toEqual(refused("PAYLOAD_TOO_LARGE"));
  });

  test("that breaks off anywhere is refused, never answered and never waited for", async () => {
    const { body, headers } = form([{ bytes: "one" }, { name: "note", file: "", bytes: "two" }]);
    const end = body.length - "--\r\n".length;
    for (let length = 1; length < end; length++) {
      await expect(read("form", [body.subarray(0, length)], headers)).rejects.toEqual(refused("BAD_REQUEST"));
    }
  });

  test("may end with anything after its last boundary", async () => {
    const { body, headers } = form([{ bytes: "one" }]);
    await expect(read("form", [body, "an epilogue"], headers)).resolves.toEqual(["one"]);
  });
});

describe("reading", () => {
  test("holds every chunk before it is kept, and stops where that is refused", async () => {
    const held: number[] = [];
    const full = new Error("full");
    const hold = (bytes: number) => {
      held.push(bytes);
      if (held.length === 2) throw full;
    };
    const body = arriving(["ab", "cde", "f"], {});
    await expect(readInputs(body, "raw", image, limits, hold)).rejects.toBe(full);
    expect(held).toEqual([2, 3]);
  });

  test("ends as cancelled when the client goes away", async () => {
    const body = Object.assign(new Readable({ read() {} }), { headers: {} });
    const reading = readInputs(body, "raw", image, limits, () => {});
    body.push("ab");
    body.destroy();
    await expect(reading).rejects.toEqual(refused("CANCELLED"));
  });

  test("ends as slow when the body does not arrive in time, and leaves the stream alone", async () => {
    const body = Object.assign(new Readable({ read() {} }), { headers: {} });
    await expect(readInputs(body, "raw", image, { ...limits, timeoutMs: 1 }, () => {})).rejects.toEqual(
      refused("SLOW_REQUEST"),
    );
    expect(body.listenerCount("data")).toBe(0);
    expect(body.destroyed).toBe(false);
  });

  test("gives up a body that hardly comes, long before its time is over", async () => {
    const body = Object.assign(new Readable({ read() {} }), { headers: {} });
    const reading = readInputs(
      body,
      "raw",
      image,
      { ...limits, minBodyRate: { bytes: 3, everyMs: 20 } },
      () => {},
    );
    body.push("ab");
    await expect(reading).rejects.toEqual(refused("SLOW_REQUEST"));
  });

  test.each<BodyForm>(["raw", "form"])(
    "of small chunks (%s) costs what they are, not what each keeps alive",
    async (shape) => {
      const [pieces, size, read] = [20_000, 256, 4096];
      const bytes = pieces * size;
      const { body, headers } = form([{ bytes: "x".repeat(bytes) }]);
      const content = shape === "form" ? body : Buffer.alloc(bytes, "x");
      const small = Object.assign(new Readable({ read() {} }), { headers });
      const reading = readInputs(
        small,
        shape,
        image,
        { ...limits, maxBytes: bytes, minBodyRate: { bytes: 0, everyMs: 60_000 } },
        () => {},
      );
      const before = memory();
      for (let at = 0; at < content.length; at += size) {
        // A chunk is a part of what was read at once, with the heads of chunks and parts that nobody keeps.
        const piece = Buffer.allocUnsafeSlow(read).subarray(0, Math.min(size, content.length - at));
        content.copy(piece, 0, at);
        small.push(piece);
        // Else they wait in the stream, each an object of its own.
        if (at % (1000 * size) === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      // As chunks they would be 80 MB. What they were cut from is collected when V8 finds the time.
      await eventually(() => memory() - before < bytes + 10e6);
      small.push(null);
      const [input] = await reading;
      expect(Buffer.from(input?.bytes ?? []).equals(Buffer.alloc(bytes, "x"))).toBe(true);
    },
    60_000,
  );

  test("refuses a body in tiny pieces: each costs time, however small", async () => {
    const tiny = Object.assign(new Readable({ read() {} }), { headers: {} });
    const reading = readInputs(tiny, "raw", image, { ...limits, maxBytes: 1e6 }, () => {});
    let pushed = 0;
    const pushing = setInterval(() => {
      for (let count = 0; count < 100; count++, pushed++) tiny.push(Buffer.from("x"));
    });
    await expect(reading).rejects.toEqual(refused("BAD_REQUEST"));
    clearInterval(pushing);
    expect(pushed).toBeLessThan(10_000);
  });
});

/** Bytes that are alive. */
function memory(): number {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}
