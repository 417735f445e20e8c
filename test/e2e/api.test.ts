import sharp from "sharp";
import { form, http } from "../../testkit/http.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";

let server: TestServer;
let photo: Buffer;
let other: Buffer;

beforeAll(async () => {
  server = await startServer();
  const of = (background: string) =>
    sharp({
      create: {
        width: 40,
        height: 30,
        channels: 3,
        background,
        noise: { type: "gaussian", mean: 128, sigma: 30 },
      },
    });
  photo = await of("teal").jpeg().toBuffer();
  other = await of("plum").png().toBuffer();
}, 60_000);

afterAll(() => server?.stop());

const probability = expect.any(Number);

/** One model's word on one image. */
const answer = expect.objectContaining({
  answer: expect.any(Boolean),
  probability,
  labels: expect.arrayContaining([{ label: "cat", probability }]),
  model: { name: "pets-resnet", version: 1 },
  node: expect.any(String),
  batchSize: expect.any(Number),
  timing: { queueMs: expect.any(Number), computeMs: expect.any(Number) },
});

const classify = (path: string, bytes: Uint8Array[]) =>
  http(`${server.url}${path}`, form(bytes.map((image) => ({ bytes: image }))));

test("a photo in a form is classified by every model", async () => {
  const reply = await classify("/api/classify", [photo]);
  expect(reply.status).toBe(200);
  expect(reply.json()).toEqual({
    requestId: reply.headers["x-request-id"],
    image: {
      width: 40,
      height: 30,
      format: "jpeg",
      bytes: photo.length,
      sha256: expect.stringMatching(/^[0-9a-f]{64}$/),
    },
    results: { "resnet-cat": answer, "resnet-dog": answer },
    timing: { decodeMs: expect.any(Number), totalMs: expect.any(Number) },
  });
  expect(reply.headers["server-timing"]).toMatch(
    /^parse;dur=.*, decode;dur=.*, queue;dur=.*, compute;dur=.*, total;dur=/,
  );
});

test("a photo as the body gets the same answer", async () => {
  const reply = await http(`${server.url}/api/classify`, {
    headers: { "content-type": "image/jpeg" },
    body: photo,
  });
  const { image, results } = (await classify("/api/classify", [photo])).json();
  const said = Object.values<{ probability: number }>(results).map((result) => result.probability);
  expect(reply.json().image).toEqual(image);
  expect(
    Object.values<{ probability: number }>(reply.json().results).map((result) => result.probability),
  ).toEqual(said);
});

test("several photos are answered in their order, and a bad one among them only for itself", async () => {
  const reply = await classify("/api/classify?models=resnet-dog", [photo, Buffer.from("no image"), other]);
  expect(reply.status).toBe(200);
  expect(reply.json()).toMatchObject({
    requestId: expect.any(String),
    items: [
      { image: { format: "jpeg" }, results: { "resnet-dog": answer } },
      { error: { code: "UNSUPPORTED_MEDIA_TYPE" } },
      { image: { format: "png" }, results: { "resnet-dog": answer } },
    ],
  });
});

test("one model is asked by its address", async () => {
  const reply = await classify("/api/models/resnet-cat/classify", [photo]);
  expect(reply.json().results).toEqual({ "resnet-cat": answer });
});

test("the models are listed with what is in force", async () => {
  const { models } = (await http(`${server.url}/api/models`)).json();
  expect(models.map(({ name }: { name: string }) => name)).toEqual(["resnet-cat", "resnet-dog"]);
  const one = await http(`${server.url}/api/models/resnet-cat`);
  expect(one.json()).toEqual({ requestId: one.headers["x-request-id"], ...models[0] });
  expect(models[0]).toMatchObject({
    model: { name: "pets-resnet", version: 1 },
    state: "ready",
    input: { type: "image" },
    batching: { maxBatchSize: 8, maxQueueSize: 128, maxQueueDelayMs: 0, concurrency: expect.any(Number) },
  });
});

test("a deadline too short for any work passes with 504", async () => {
  const { headers, body } = form([{ bytes: photo }]);
  const reply = await http(`${server.url}/api/classify`, {
    headers: { ...headers, "x-request-timeout-ms": "1", "cache-control": "no-store" },
    body,
  });
  // The body itself may be too slow for it.
  expect([408, 504]).toContain(reply.status);
});

test("the server is alive, ready and counts its requests", async () => {
  expect((await http(`${server.url}/health/live`)).status).toBe(200);
  expect((await http(`${server.url}/health/ready`)).status).toBe(200);
  await classify("/api/classify", [photo]);
  const metrics = await http(`${server.url}/metrics`);
  expect(metrics.text).toMatch(/^http_requests_total\{.*route="\/api\/classify",status="200"\} [1-9]/m);
});

test("the page is served", async () => {
  const page = await http(`${server.url}/`);
  expect([page.status, page.headers["content-type"]]).toEqual([200, "text/html; charset=utf-8"]);
});
