import { readFileSync } from "node:fs";
import { crc32 } from "node:zlib";
import sharp from "sharp";
import { dial, form, http, readAll, type Sending } from "../../testkit/http.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";

const ANSWER_DEADLINE_MS = 10_000;
const MIB = 1024 * 1024;

let server: TestServer;
let photo: Buffer;
let png: Buffer;
let webp: Buffer;

beforeAll(async () => {
  const noise = sharp({
    create: {
      width: 320,
      height: 240,
      channels: 3,
      background: "teal",
      noise: { type: "gaussian", mean: 128, sigma: 40 },
    },
  });
  [photo, png, webp] = await Promise.all([
    noise.clone().jpeg().toBuffer(),
    noise.clone().png().toBuffer(),
    noise.clone().webp().toBuffer(),
  ]);
  // Tight bounds: a place or a byte that a bad request does not give back shuts the next one out.
  server = await startServer({
    BODY_TIMEOUT_MS: "1000",
    MAX_IN_FLIGHT: "2",
    MAX_BUFFERED_BYTES: String(24 * MIB),
    CACHE_TTL_MS: "0",
  });
}, 60_000);

afterAll(() => server?.stop());

/** A form with one image. */
const image = (bytes: Uint8Array | string, file = "photo.jpg") => form([{ file, bytes }]);

/** A PNG whose header declares this size, and whose pixels are far fewer. */
function declaring(size: number): Buffer {
  const header = Buffer.from(png.subarray(0, 33));
  header.writeUInt32BE(size, 16);
  header.writeUInt32BE(size, 20);
  header.writeUInt32BE(crc32(header.subarray(12, 29)), 29);
  return Buffer.concat([header, png.subarray(33)]);
}

/** The head of a zip archive with one stored, empty file. */
const ZIP = Buffer.from("504b03040a00000000000000000000000000000000000000000001000000610a", "hex");
const SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8"/></svg>';

function post(path: string, sending: Sending) {
  return () =>
    http(`${server.url}${path}`, {
      method: "POST",
      signal: AbortSignal.timeout(ANSWER_DEADLINE_MS),
      ...sending,
    });
}

/** Sends bytes as they are; the status and body of what comes back. */
async function sendRaw(bytes: string | Buffer) {
  const socket = await dial(server.url);
  socket.setTimeout(ANSWER_DEADLINE_MS, () => socket.destroy(new Error("No answer in time")));
  socket.write(bytes);
  const [head = "", text = ""] = (await readAll(socket)).split("\r\n\r\n");
  return { status: Number(head.split(" ")[1]), text };
}

function head(path: string, headers: Readonly<Record<string, string | number>>) {
  const lines = Object.entries({ host: "x", ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  return `POST ${path} HTTP/1.1\r\n${lines.join("")}\r\n`;
}

/** Lines the server has printed, but for the one that every request has. */
const printed = () =>
  server
    .log()
    .split("\n")
    .filter((line) => line !== "" && !line.includes(" Request {")).length;

async function expectServing() {
  const reply = await post("/api/classify", image(photo))();
  expect([reply.status, reply.json().results["resnet-cat"].answer]).toEqual([200, expect.any(Boolean)]);
}

type Refusal = readonly [
  name: string,
  status: number,
  code: string,
  send: () => Promise<{ readonly status: number; readonly text: string }>,
];

const names = Array.from({ length: 1000 }, (_, index) => `m${index}`).join();

const REFUSED: readonly Refusal[] = [
  [
    "an empty body",
    400,
    "BAD_REQUEST",
    () => post("/api/classify", { headers: { "content-type": "image/jpeg" } })(),
  ],
  ["no body and no type", 400, "BAD_REQUEST", () => post("/api/classify", {})()],
  ["an empty file", 400, "BAD_REQUEST", () => post("/api/classify", image(""))()],
  [
    "a form without an image",
    400,
    "BAD_REQUEST",
    () => post("/api/classify", form([{ name: "photo", bytes: photo }]))(),
  ],
  [
    "text named .jpg",
    415,
    "UNSUPPORTED_MEDIA_TYPE",
    () => post("/api/classify", image("just words, ".repeat(99)))(),
  ],
  [
    "half a JPEG",
    422,
    "INVALID_IMAGE",
    () => post("/api/classify", image(photo.subarray(0, photo.length / 2)))(),
  ],
  ["half a PNG", 422, "INVALID_IMAGE", () => post("/api/classify", image(png.subarray(0, png.length / 2)))()],
  [
    "half a WebP",
    422,
    "INVALID_IMAGE",
    () => post("/api/classify", image(webp.subarray(0, webp.length / 2)))(),
  ],
  [
    "a PNG of 60,000 × 60,000",
    422,
    "TOO_MANY_PIXELS",
    () => post("/api/classify", image(declaring(60_000)))(),
  ],
  [
    "an SVG in a form",
    415,
    "UNSUPPORTED_MEDIA_TYPE",
    () => post("/api/classify", image(SVG, "drawing.svg"))(),
  ],
  [
    "an SVG as the body",
    415,
    "UNSUPPORTED_MEDIA_TYPE",
    () => post("/api/classify", { headers: { "content-type": "image/svg+xml" }, body: SVG })(),
  ],
  ["a zip", 415, "UNSUPPORTED_MEDIA_TYPE", () => post("/api/classify", image(ZIP))()],
  [
    "11 MiB in a form",
    413,
    "PAYLOAD_TOO_LARGE",
    () => post("/api/classify", image(new Uint8Array(11 * MIB)))(),
  ],
  [
    "11 MiB as the body",
    413,
    "PAYLOAD_TOO_LARGE",
    () =>
      post("/api/classify", { headers: { "content-type": "image/jpeg" }, body: new Uint8Array(11 * MIB) })(),
  ],
  [
    "11 MiB of unannounced length",
    413,
    "PAYLOAD_TOO_LARGE",
    () =>
      sendRaw(
        Buffer.concat([
          Buffer.from(
            head("/api/classify", { "content-type": "image/jpeg", "transfer-encoding": "chunked" }),
          ),
          Buffer.from(`${(11 * MIB).toString(16)}\r\n`),
          new Uint8Array(11 * MIB),
          Buffer.from("\r\n0\r\n\r\n"),
        ]),
      ),
  ],
  [
    "50 files",
    413,
    "PAYLOAD_TOO_LARGE",
    () => post("/api/classify", form(Array.from({ length: 50 }, () => ({ bytes: photo }))))(),
  ],
  ["an unknown model", 404, "MODEL_NOT_FOUND", () => post("/api/classify?models=resnet-cow", image(photo))()],
  [
    "an unknown model in the path",
    404,
    "MODEL_NOT_FOUND",
    () => post("/api/models/cow/classify", image(photo))(),
  ],
  ["models=", 400, "BAD_REQUEST", () => post("/api/classify?models=", image(photo))()],
  ["1,000 models", 400, "BAD_REQUEST", () => post(`/api/classify?models=${names}`, image(photo))()],
  ["models=../", 404, "MODEL_NOT_FOUND", () => post("/api/classify?models=../", image(photo))()],
  [
    "a model of ../ in the path",
    404,
    "MODEL_NOT_FOUND",
    () => post("/api/models/..%2F/classify", image(photo))(),
  ],
  [
    "a wrong method",
    405,
    "METHOD_NOT_ALLOWED",
    () => post("/api/classify", { ...image(photo), method: "PUT" })(),
  ],
  [
    "a wrong content type",
    415,
    "UNSUPPORTED_MEDIA_TYPE",
    () => post("/api/classify", { headers: { "content-type": "application/json" }, body: "{}" })(),
  ],
  [
    "a form without its end",
    400,
    "BAD_REQUEST",
    () => {
      const { headers, body } = image(photo);
      return post("/api/classify", { headers, body: body.subarray(0, -10) })();
    },
  ],
  [
    "a form without a boundary",
    400,
    "BAD_REQUEST",
    () => post("/api/classify", { ...image(photo), headers: { "content-type": "multipart/form-data" } })(),
  ],
  [
    "a form with another boundary than it says",
    400,
    "BAD_REQUEST",
    () =>
      post("/api/classify", {
        ...image(photo),
        headers: { "content-type": "multipart/form-data; boundary=b" },
      })(),
  ],
  [
    "a deadline that is no number",
    400,
    "BAD_REQUEST",
    () => {
      const { headers, body } = image(photo);
      return post("/api/classify", { headers: { ...headers, "x-request-timeout-ms": "soon" }, body })();
    },
  ],
  [
    "a body that trickles",
    408,
    "SLOW_REQUEST",
    async () => {
      const socket = await dial(server.url);
      socket.write(head("/api/classify", { "content-type": "image/jpeg", "content-length": 1000 }));
      const trickle = setInterval(() => socket.write("x"), 50);
      const answer = await readAll(socket).finally(() => clearInterval(trickle));
      return { status: Number(answer.split(" ")[1]), text: answer.split("\r\n\r\n")[1] ?? "" };
    },
  ],
  [
    "a header of 64 KB",
    431,
    "HEADERS_TOO_LARGE",
    () => sendRaw(head("/api/classify", { "x-big": "x".repeat(65_536), "content-length": 0 })),
  ],
];

test.each(REFUSED)(
  "%s is answered with %i, and the next good request is served",
  async (_, status, code, send) => {
    const before = printed();
    const reply = await send();
    expect([reply.status, JSON.parse(reply.text)]).toEqual([
      status,
      {
        error: {
          code,
          message: expect.any(String),
          retryable: status === 408,
          requestId: expect.any(String),
        },
      },
    ]);
    expect(reply.text).not.toMatch(/\bat .*:\d+|node_modules|\.ts\b/);
    await expectServing();
    expect(printed() - before).toBeLessThanOrEqual(1);
  },
);

test("models named again and again are asked once", async () => {
  const again = `models=resnet-cat&models=resnet-cat,resnet-cat`;
  const reply = await post(`/api/classify?${again}`, image(photo))();
  expect([reply.status, Object.keys(reply.json().results)]).toEqual([200, ["resnet-cat"]]);
});

test("a client that disconnects in the middle of its upload is forgotten", async () => {
  const before = printed();
  // More of them than there are places: each must give its own back.
  for (let client = 0; client < 6; client++) {
    const socket = await dial(server.url);
    const type = client % 2 ? "image/jpeg" : "multipart/form-data; boundary=a-boundary";
    socket.write(head("/api/classify", { "content-type": type, "content-length": 5 * MIB }));
    await new Promise((written) => socket.write(image(photo).body.subarray(0, 5000), written));
    socket.destroy();
  }
  await eventually(async () => (await post("/api/classify", image(photo))()).status === 200);
  await expectServing();
  expect(printed() - before).toBeLessThanOrEqual(6);
});

test("memory is back to where it was after many bad requests", async () => {
  const heavy = REFUSED.filter(([name]) => /11 MiB|50 files|half|60,000|without its end/.test(name));
  const round = async () => {
    for (const [, , , send] of heavy) await send();
  };
  // The allocator keeps what one wave of garbage took: the level is where it stops growing.
  let before = 0;
  for (let warm = 0; warm < 10; warm++) {
    await round();
    before = Math.max(before, residentBytes());
  }
  // Kept, these would be over 600 MiB.
  for (let again = 0; again < 20; again++) await round();
  await eventually(async () => {
    await expectServing();
    return residentBytes() - before < 64 * MIB;
  });
}, 120_000);

/** Memory of the server's process, `VmRSS` of proc(5). */
function residentBytes(): number {
  const status = readFileSync(`/proc/${server.process.pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
}

/** Asks again until it is so; the test's own time-out is the end. */
async function eventually(check: () => Promise<boolean>): Promise<void> {
  while (!(await check())) await new Promise((resolve) => setTimeout(resolve, 50));
}
