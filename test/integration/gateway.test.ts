import { once } from "node:events";
import { Agent } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { type Context, Loggers, ServiceBroker } from "moleculer";
import { ServingError } from "../../lib/errors.ts";
import type { Listener } from "../../lib/http/listener.ts";
import type { GatewayOptions } from "../../lib/http/options.ts";
import type { InputSpec } from "../../lib/kinds/kind.ts";
import { loadOf } from "../../lib/load/load.ts";
import { healthOf } from "../../lib/telemetry/health.ts";
import type { AskParams, ItemAnswer, ModelAnswer, ModelMetadata } from "../../lib/types.ts";
import { Load } from "../../middlewares/load.ts";
import gateway from "../../services/gateway.service.ts";
import { eventually } from "../../testkit/eventually.ts";
import { dial, form, http, readAll } from "../../testkit/http.ts";

type Classify = (ctx: Context<AskParams, { traceparent?: string }>) => Promise<readonly ItemAnswer[]>;

const MODEL = { name: "pets", version: 2 };
const YES = {
  answer: true,
  probability: 0.9,
  labels: [],
  model: MODEL,
  node: "n",
  batchSize: 1,
  dispatchReason: "idle",
  timing: { queueMs: 1, computeMs: 2 },
} as const;

/** What a model service says of itself in the registry. */
const metadataOf = (question: string): ModelMetadata => ({
  kind: "model",
  question,
  versions: [
    {
      id: { ...MODEL, fingerprint: "f1" },
      action: "2-f1.predict",
      input: { type: "image", width: 2, height: 2 } as InputSpec,
      task: {
        name: "classification",
        spec: { labels: ["cat"] },
        question: { group: [0], threshold: 0.5 },
      },
    },
  ],
  batching: { maxBatchSize: 8, maxQueueSize: 9, maxQueueDelayMs: 0, concurrency: 1 },
});

/** What a dispatcher says of an image: its size stands for its content. */
function answerTo(bytes: Uint8Array, results: Record<string, ModelAnswer>): ItemAnswer {
  const info = { width: 1, height: 1, format: "png", bytes: bytes.length, sha256: "00" };
  return { info, results, timing: { decodeMs: 3 } };
}

const allYes: Classify = async (ctx) => ctx.params.inputs.map(({ bytes }) => answerTo(bytes, { cat: YES }));

class LinesLogger extends Loggers.Base<{ level?: "info" }> {
  readonly lines: string[] = [];
  override getLogHandler() {
    return (level: string, args: unknown[]) => void this.lines.push(`${level} ${args.map(String).join(" ")}`);
  }
}

interface Setup {
  readonly http?: Partial<GatewayOptions>;
  readonly classify?: Classify;
}

const brokers: ServiceBroker[] = [];

/** The gateway over real HTTP in front of a dispatcher that is no more than `classify`. */
async function start({ http: options = {}, classify = allYes }: Setup = {}) {
  const logger = new LinesLogger();
  const broker = new ServiceBroker({ logger: logger as never });
  const cancelled: string[] = [];
  broker.createService({
    name: "gateway",
    mixins: [gateway],
    settings: { port: 0, ip: "127.0.0.1", http: options },
  });
  broker.createService({
    name: "dispatcher",
    actions: {
      ask: async (ctx: Context<AskParams, object>) => ({ items: await classify(ctx) }),
    },
    events: {
      "inference.cancel": (ctx: Context<{ cancelId: string }>) => void cancelled.push(ctx.params.cancelId),
    },
  });
  broker.createService({
    name: "cat",
    metadata: metadataOf("Is it a cat?"),
  });
  brokers.push(broker);
  await broker.start();
  healthOf(broker).ready();
  const { listener } = broker.getLocalService("gateway") as unknown as { listener: Listener };
  const { port } = listener.server.address() as AddressInfo;
  const started = logger.lines.length;
  return {
    broker,
    url: `http://127.0.0.1:${port}`,
    cancelled,
    /** What was logged since the start, but for the line that every request has. */
    logged: () =>
      logger.lines.slice(started).filter((line) => /^(warn|error|fatal|info) (?!Request )/.test(line)),
  };
}

afterEach(async () => {
  await Promise.all(brokers.splice(0).map((broker) => broker.stop()));
});

const IMAGE = { headers: { "content-type": "image/png" }, body: "pixels" };

const POST = "POST /api/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\n";

/** A promise and the function that resolves it. */
function gate() {
  return Promise.withResolvers<void>();
}

describe("classification", () => {
  test("of one image is a flat answer that says where its time went", async () => {
    const { url } = await start();
    const reply = await http(`${url}/api/classify`, form([{ bytes: "pixels" }]));
    expect(reply.status).toBe(200);
    expect(reply.json()).toEqual({
      requestId: reply.headers["x-request-id"],
      image: { width: 1, height: 1, format: "png", bytes: 6, sha256: "00" },
      results: { cat: YES },
      timing: { decodeMs: 3, totalMs: expect.any(Number) },
    });
    expect(reply.headers).toMatchObject({
      "content-type": "application/json; charset=utf-8",
      "cache-control": "no-store",
      "server-timing": expect.stringMatching(
        /^parse;dur=[\d.]+, decode;dur=3, queue;dur=1, compute;dur=2, total;dur=[\d.]+$/,
      ),
    });
  });

  test("of a raw body is the same", async () => {
    const { url } = await start();
    const reply = await http(`${url}/api/models/cat/classify`, IMAGE);
    expect(reply.json()).toMatchObject({ image: { bytes: 6 }, results: { cat: { answer: true } } });
  });

  test("of several images keeps their order, whichever is answered first", async () => {
    const second = gate();
    const { url } = await start({
      classify: async (ctx) => {
        if (ctx.params.inputs[0]?.bytes.length === 1) await second.promise;
        else second.resolve();
        return allYes(ctx);
      },
    });
    const reply = await http(`${url}/api/classify`, form([{ bytes: "1" }, { bytes: "22" }]));
    expect(reply.json().items.map((item: { image: { bytes: number } }) => item.image.bytes)).toEqual([1, 2]);
    expect(reply.json()).toMatchObject({
      requestId: expect.any(String),
      timing: { totalMs: expect.any(Number) },
    });
  });

  test("hands on models, cache wish, request id, trace and the time left", async () => {
    const seen: unknown[] = [];
    const { url, broker } = await start({
      classify: async (ctx) => {
        const { models, noStore } = ctx.params;
        seen.push({
          models,
          noStore,
          id: ctx.requestID,
          trace: ctx.meta.traceparent,
          timeout: ctx.options.timeout,
        });
        return allYes(ctx);
      },
    });
    const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    // Another model, of which the gateway only knows the name.
    broker.createService({ name: "dog", metadata: metadataOf("Is it a dog?") });
    await broker.waitForServices("dog");
    await http(`${url}/api/classify?models=dog,cat&models=dog`, {
      ...IMAGE,
      headers: {
        ...IMAGE.headers,
        "x-request-id": "order-7",
        "cache-control": "no-store",
        "x-request-timeout-ms": "5000",
        traceparent,
      },
    });
    await http(`${url}/api/models/cat/classify`, IMAGE);
    await http(`${url}/api/classify`, IMAGE);
    expect(seen).toEqual([
      {
        models: ["dog", "cat"],
        noStore: true,
        id: "order-7",
        trace: traceparent,
        timeout: expect.any(Number),
      },
      { models: ["cat"], id: expect.any(String), timeout: expect.any(Number) },
      { id: expect.any(String), timeout: expect.any(Number) },
    ]);
    const [first, second] = seen as { timeout: number }[];
    expect(first?.timeout).toBeLessThanOrEqual(5000);
    expect(second?.timeout).toBeGreaterThan(5000);
  });

  test("is a success when one of the models fails", async () => {
    const error = { code: "QUEUE_FULL", message: "full", retryable: true } as const;
    const { url } = await start({
      classify: async ({ params }) =>
        params.inputs.map(({ bytes }) => answerTo(bytes, { cat: YES, dog: { error } })),
    });
    const reply = await http(`${url}/api/classify`, IMAGE);
    expect([reply.status, reply.json().results.dog]).toEqual([200, { error }]);
  });

  test("fails as the models did when all of them do, and says when to come back", async () => {
    const error = { code: "QUEUE_FULL", message: "full", retryable: true } as const;
    const { url } = await start({
      classify: async ({ params }) => params.inputs.map(({ bytes }) => answerTo(bytes, { cat: { error } })),
    });
    const reply = await http(`${url}/api/classify`, IMAGE);
    expect([reply.status, reply.headers["retry-after"]]).toEqual([503, "1"]);
    expect(reply.json()).toEqual({ error: { ...error, requestId: reply.headers["x-request-id"] } });
  });

  test("of an image whose call fails leaves the other images their answers", async () => {
    const { url } = await start({
      classify: async (ctx) => {
        if (ctx.params.inputs[0]?.bytes.length === 1) throw new ServingError("INVALID_IMAGE", "no image");
        return allYes(ctx);
      },
    });
    const reply = await http(`${url}/api/classify`, form([{ bytes: "1" }, { bytes: "22" }]));
    expect(reply.status).toBe(200);
    expect(reply.json().items).toEqual([
      { error: { code: "INVALID_IMAGE", message: "no image", retryable: false } },
      expect.objectContaining({ results: { cat: YES } }),
    ]);
  });

  test("tries another dispatcher when one goes away under it", async () => {
    let calls = 0;
    const { url } = await start({
      classify: async (ctx) => {
        calls += 1;
        if (calls === 1) throw new ServingError("DRAINING", "bye");
        return allYes(ctx);
      },
    });
    expect((await http(`${url}/api/classify`, IMAGE)).status).toBe(200);
    expect(calls).toBe(2);
  });

  test("that fails by our fault tells the client nothing and the log everything, once", async () => {
    const { url, logged } = await start({
      classify: async () => {
        throw new Error("secret path");
      },
    });
    const reply = await http(`${url}/api/classify`, IMAGE);
    expect(reply.status).toBe(500);
    expect(reply.json().error).toMatchObject({ code: "INTERNAL", requestId: reply.headers["x-request-id"] });
    expect(reply.text).not.toContain("secret");
    expect(logged()).toEqual([expect.stringContaining("secret path")]);
  });

  test("without a dispatcher is unavailable", async () => {
    const { url, broker } = await start();
    await broker.destroyService("dispatcher");
    const reply = await http(`${url}/api/classify`, IMAGE);
    expect([reply.status, reply.json().error]).toMatchObject([
      503,
      { code: "MODEL_UNAVAILABLE", message: "No dispatcher is up", retryable: true },
    ]);
  });

  test("at its model's address is the same under both names", async () => {
    const { url } = await start();
    const [classified, predicted] = await Promise.all(
      ["classify", "predict"].map((verb) => http(`${url}/api/models/cat/${verb}`, IMAGE)),
    );
    expect(predicted?.json().results).toEqual(classified?.json().results);
  });

  test("has times with two decimals, however exact they were", async () => {
    const { url } = await start({
      classify: async ({ params }) =>
        params.inputs.map(({ bytes }) => ({
          ...answerTo(bytes, { cat: { ...YES, timing: { queueMs: 0.123456, computeMs: 2.345678 } } }),
          timing: { decodeMs: 3.456789 },
        })),
    });
    const { results, timing } = (await http(`${url}/api/classify`, IMAGE)).json();
    expect([results.cat.timing, timing.decodeMs]).toEqual([{ queueMs: 0.12, computeMs: 2.35 }, 3.46]);
  });
});

describe("a model whose last replica left", () => {
  test("is listed as unavailable and still known", async () => {
    const { url, broker } = await start();
    await broker.destroyService("cat");
    const { models } = (await http(`${url}/api/models`)).json();
    expect(models).toMatchObject([{ name: "cat", state: "unavailable", replicas: [] }]);
    expect((await http(`${url}/api/models/cat`)).json()).toMatchObject({ state: "unavailable" });
    expect((await http(`${url}/api/models/cat/classify`, IMAGE)).status).toBe(200);
  });
});

describe("deadline", () => {
  test("passes with 504 though nothing ever answers", async () => {
    const { url } = await start({ classify: () => new Promise(() => {}) });
    const headers = { ...IMAGE.headers, "x-request-timeout-ms": "1000" };
    const reply = await http(`${url}/api/classify`, { ...IMAGE, headers });
    expect([reply.status, reply.json().error.code]).toEqual([504, "DEADLINE_EXCEEDED"]);
  });

  test("of one image leaves the others their answers", async () => {
    const { url } = await start({
      classify: (ctx) => (ctx.params.inputs[0]?.bytes.length === 1 ? new Promise(() => {}) : allYes(ctx)),
    });
    const { headers, body } = form([{ bytes: "1" }, { bytes: "22" }]);
    const reply = await http(`${url}/api/classify`, {
      headers: { ...headers, "x-request-timeout-ms": "1500" },
      body,
    });
    expect(reply.status).toBe(200);
    expect(reply.json().items[0].error.code).toBe("DEADLINE_EXCEEDED");
  });

  test("that is no number is refused", async () => {
    const { url } = await start();
    const headers = { ...IMAGE.headers, "x-request-timeout-ms": "soon" };
    expect((await http(`${url}/api/classify`, { ...IMAGE, headers })).status).toBe(400);
  });
});

describe("a client that hangs up", () => {
  test("cancels what it asked for, and not what another asked under the same request id", async () => {
    const asked = gate();
    const cancelIds: unknown[] = [];
    const { url, cancelled, broker } = await start({
      classify: (ctx) => {
        cancelIds.push((ctx.meta as { cancelId?: string }).cancelId);
        if (cancelIds.length === 2) asked.resolve();
        return new Promise(() => {});
      },
    });
    const heard = new Promise<void>((resolve) => {
      broker.createService({ name: "witness", events: { "inference.cancel": () => resolve() } });
    });
    const client = new AbortController();
    const headers = { ...IMAGE.headers, "x-request-id": "mine" };
    const request = http(`${url}/api/classify`, { ...IMAGE, headers, signal: client.signal });
    await eventually(async () => cancelIds.length === 1);
    const other = http(`${url}/api/classify`, {
      ...IMAGE,
      headers: { ...headers, "x-request-timeout-ms": "2000" },
    });
    await asked.promise;
    client.abort();
    await expect(request).rejects.toThrow();
    await heard;
    expect(new Set(cancelIds).size).toBe(2);
    expect(cancelled).toEqual([cancelIds[0]]);
    expect((await other).status).toBe(504);
  });

  test("while it sends gives back what it held and asks nobody", async () => {
    let calls = 0;
    const { url, cancelled, logged } = await start({
      http: { maxBufferedBytes: 10 },
      classify: (ctx) => {
        calls += 1;
        return allYes(ctx);
      },
    });
    const socket = await dial(url);
    socket.write(
      "POST /api/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n",
    );
    await eventually(async () => (await http(`${url}/api/classify`, IMAGE)).status === 503);
    const before = calls;
    socket.destroy();
    await eventually(async () => (await http(`${url}/api/classify`, IMAGE)).status === 200);
    expect([calls - before, cancelled, logged()]).toEqual([1, [], []]);
  });
});

describe("models", () => {
  test("are listed with what they can do", async () => {
    const { url, broker } = await start();
    const cat = {
      name: "cat",
      question: "Is it a cat?",
      model: { ...MODEL, fingerprint: "f1" },
      input: { type: "image", width: 2, height: 2 },
      task: "classification",
      labels: ["cat"],
      batching: { maxBatchSize: 8, maxQueueSize: 9, maxQueueDelayMs: 0, concurrency: 1 },
      state: "ready",
      replicas: [broker.nodeID],
      versions: [],
    };
    expect((await http(`${url}/api/models`)).json()).toEqual({
      requestId: expect.any(String),
      models: [cat],
      limits: {
        maxImageBytes: expect.any(Number),
        maxVideoBytes: expect.any(Number),
        maxImages: expect.any(Number),
      },
    });
    expect((await http(`${url}/api/models/cat`)).json()).toEqual({ requestId: expect.any(String), ...cat });
  });

  test.each(["dog", "..%2F", "$node", "cat%00"])("%s is unknown", async (name) => {
    const { url } = await start();
    const reply = await http(`${url}/api/models/${name}`);
    expect([reply.status, reply.json().error.code]).toEqual([404, "MODEL_NOT_FOUND"]);
  });
});

describe("addresses", () => {
  test("know their methods", async () => {
    const { url } = await start();
    const refused = await http(`${url}/api/classify`, { method: "PUT", body: "x" });
    expect([refused.status, refused.headers.allow, refused.json().error.code]).toEqual([
      405,
      "POST",
      "METHOD_NOT_ALLOWED",
    ]);
    expect((await http(`${url}/api/models`, { method: "DELETE" })).headers.allow).toBe("GET, HEAD");
  });

  test("answer HEAD as GET, without a body", async () => {
    const { url } = await start();
    const reply = await http(`${url}/api/models/cat`, { method: "HEAD" });
    expect([reply.status, reply.text]).toEqual([200, ""]);
    expect(Number(reply.headers["content-length"])).toBeGreaterThan(0);
  });

  test.each([
    "/api",
    "/api/nothing",
    "/nothing.js",
    "/api/classify/more",
    "/../package.json",
    "/~node/list",
    "/gateway/rest",
  ])("%s does not exist", async (path) => {
    const { url } = await start();
    const reply = await http(`${url}${path}`);
    expect([reply.status, reply.json().error.code]).toEqual([404, "NOT_FOUND"]);
    expect(reply.json().error.requestId).toBe(reply.headers["x-request-id"]);
  });

  test("that are no text are malformed", async () => {
    const { url, logged } = await start();
    const reply = await http(`${url}/api/models/%E0%A4%A`);
    expect([reply.status, reply.json().error.code]).toEqual([400, "BAD_REQUEST"]);
    expect(logged()).toEqual([]);
  });

  test("for health and metrics answer", async () => {
    const { url } = await start();
    const live = await http(`${url}/health/live`);
    expect([live.status, live.json().requestId]).toEqual([200, live.headers["x-request-id"]]);
    expect((await http(`${url}/health/ready`)).status).toBe(200);
    const metrics = await http(`${url}/metrics`);
    expect([metrics.status, metrics.headers["content-type"]]).toEqual([
      200,
      "text/plain; version=0.0.4; charset=utf-8",
    ]);
  });

  test("of the page answer with its files, asked for again each time but sent once", async () => {
    const { url } = await start();
    const page = await http(`${url}/`);
    expect([page.status, page.headers["content-type"]]).toEqual([200, "text/html; charset=utf-8"]);
    expect(page.headers).toMatchObject({
      "cache-control": "no-cache",
      "content-security-policy": "default-src 'self'; img-src 'self' blob:",
      "x-content-type-options": "nosniff",
      "referrer-policy": "no-referrer",
    });
    const again = await http(`${url}/`, { headers: { "if-none-match": page.headers.etag ?? "" } });
    expect(again.status).toBe(304);
  });
});

describe("request ids", () => {
  test("of the client are kept if they are sane", async () => {
    const { url } = await start();
    const reply = await http(`${url}/api/models`, { headers: { "x-request-id": "order-7" } });
    expect([reply.json().requestId, reply.headers["x-request-id"]]).toEqual(["order-7", "order-7"]);
    const replaced = await http(`${url}/api/models`, { headers: { "x-request-id": "a b" } });
    expect(replaced.headers["x-request-id"]).toMatch(/^[0-9a-f-]{36}$/);
  });
});

describe("at the door", () => {
  test("one request too many is refused at once and its body not read", async () => {
    const asked = gate();
    const free = gate();
    const { url } = await start({
      http: { maxInFlight: 1 },
      classify: async (ctx) => {
        asked.resolve();
        await free.promise;
        return allYes(ctx);
      },
    });
    const first = http(`${url}/api/classify`, IMAGE);
    await asked.promise;
    // The rest of this body never comes: an answer before it proves that nobody waits for it.
    const socket = await dial(url);
    socket.write(
      "POST /api/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: 1000000\r\n\r\n",
    );
    const refused = await readAll(socket);
    expect(refused).toMatch(/^HTTP\/1\.1 503 /);
    expect(refused).toMatch(/retry-after: 1\r\n/i);
    expect(refused).toMatch(/connection: close\r\n/i);
    expect(refused).toContain('"QUEUE_FULL"');
    free.resolve();
    expect((await first).status).toBe(200);
    expect((await http(`${url}/api/classify`, IMAGE)).status).toBe(200);
  });

  test("bodies over all requests have bounded bytes", async () => {
    const { url } = await start({ http: { maxBufferedBytes: 10 } });
    const refused = await http(`${url}/api/classify`, { ...IMAGE, body: "x".repeat(11) });
    expect([refused.status, refused.json().error.code]).toEqual([503, "QUEUE_FULL"]);
    for (const _ of [1, 2, 3]) expect((await http(`${url}/api/classify`, IMAGE)).status).toBe(200);
  });

  test("a body whose size shows only as it comes is bounded too", async () => {
    const { url } = await start({ http: { maxBufferedBytes: 1000, maxImageBytes: 10_000 } });
    const socket = await dial(url);
    socket.write(
      "POST /api/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    socket.write(`7d0\r\n${"x".repeat(2000)}\r\n`);
    expect(await readAll(socket)).toMatch(/^HTTP\/1\.1 503 /);
    expect((await http(`${url}/api/classify`, IMAGE)).status).toBe(200);
  });

  test("a small request that is refused for want of room keeps its connection", async () => {
    const { url } = await start({ http: { maxBufferedBytes: 10 } });
    const socket = await dial(url);
    const head =
      "POST /api/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: 2000\r\n";
    let text = "";
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    socket.write(`${head}\r\n${"x".repeat(500)}`);
    await eventually(() => /^HTTP\/1\.1 503 [\s\S]*connection: keep-alive/i.test(text));
    socket.write(`${"x".repeat(1500)}GET /api/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`);
    await once(socket, "close");
    expect(text).toMatch(/HTTP\/1\.1 200 OK/);
  });

  test("an answer before the end of a large body reaches the client", async () => {
    const { url } = await start();
    const reply = await http(`${url}/api/classify`, {
      headers: { "content-type": "image/png" },
      body: new Uint8Array(12 * 1024 * 1024),
    });
    expect([reply.status, reply.headers.connection]).toEqual([413, "close"]);
  });

  test("an answer before the end of a body reaches even a client that reads only when it has sent all", async () => {
    const { url } = await start({ http: { maxImageBytes: 1000 } });
    const socket = (await dial(url)).pause();
    const size = 12 * 1024 * 1024;
    socket.write(
      "POST /api/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n\r\n" +
        `${size.toString(16)}\r\n`,
    );
    await new Promise<void>((sent, failed) => {
      socket.write(new Uint8Array(size), (error) => (error ? failed(error) : sent()));
    });
    expect(await readAll(socket)).toMatch(/^HTTP\/1\.1 413 /);
  });

  test("a client that asks first is told to send, or told why not", async () => {
    const { url } = await start();
    const ask = async (length: number, body: string) => {
      const socket = await dial(url);
      socket.write(
        `POST /api/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: ${length}\r\n` +
          "expect: 100-continue\r\nconnection: close\r\n\r\n",
      );
      const [first] = (await once(socket, "data")) as [Buffer];
      socket.write(body);
      return first.toString() + (await readAll(socket));
    };
    expect(await ask(3, "abc")).toMatch(/^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK/);
    expect(await ask(11 * 1024 * 1024, "")).toMatch(/^HTTP\/1\.1 413 /);
  });

  test("slow bodies, however many, keep nobody out", async () => {
    const { url } = await start({ http: { maxInFlight: 2 } });
    const slow = await Promise.all(Array.from({ length: 20 }, () => dial(url)));
    for (const [index, socket] of slow.entries()) {
      const query = index % 2 ? "" : "?models=cat";
      socket.write(
        `POST /api/classify${query} HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: 1000\r\n\r\nx`,
      );
    }
    // Only after these are their heads surely read.
    for (let count = 0; count < 3; count++) await http(`${url}/api/models`);
    expect((await http(`${url}/api/classify`, IMAGE)).status).toBe(200);
    for (const socket of slow) socket.destroy();
  });

  test("a model that there is not is told before the body", async () => {
    const { url } = await start();
    for (const path of ["/api/classify?models=cat,cow", "/api/models/cow/classify"]) {
      const socket = await dial(url);
      socket.write(
        `POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: 1000\r\n\r\n`,
      );
      expect(await readAll(socket)).toMatch(/^HTTP\/1\.1 404 [\s\S]*"MODEL_NOT_FOUND"/);
    }
  });

  test("bodies of one client leave room for those of others", async () => {
    const { url } = await start({
      http: { maxBufferedBytes: 100, trustedProxies: ["127.0.0.1"] },
    });
    const flood = await dial(url);
    flood.write(
      "POST /api/classify HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 203.0.113.1\r\ncontent-type: image/png\r\n" +
        `transfer-encoding: chunked\r\n\r\n46\r\n${"x".repeat(70)}\r\n`,
    );
    const from = (address: string) =>
      http(`${url}/api/classify`, {
        ...IMAGE,
        headers: { ...IMAGE.headers, "x-forwarded-for": address },
      });
    await eventually(async () => (await from("203.0.113.1")).status === 503);
    expect((await from("203.0.113.2")).status).toBe(200);
    flood.destroy();
  });

  test("a body that hardly comes is given up before its time is over", async () => {
    const { url } = await start({ http: { minBodyRate: { bytes: 100, everyMs: 100 } } });
    const socket = await dial(url);
    socket.write(
      "POST /api/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: 1000\r\n\r\nx",
    );
    expect(await readAll(socket)).toMatch(/^HTTP\/1\.1 408 [\s\S]*"SLOW_REQUEST"/);
  });

  test("idle connections, however many, do not shut anyone out", async () => {
    const { url } = await start({ http: { maxConnections: 8 } });
    const idle = await Promise.all(Array.from({ length: 20 }, () => dial(url)));
    // These have begun a head that never ends.
    for (const socket of idle) socket.write("GET /");
    expect((await http(`${url}/health/live`)).status).toBe(200);
    expect((await http(`${url}/api/classify`, IMAGE)).status).toBe(200);
    for (const socket of idle) socket.destroy();
  });

  test("a client that does not read its answer is given up", async () => {
    const { url } = await start({ http: { writeTimeoutMs: 100 } });
    const socket = (await dial(url)).pause();
    let closed = false;
    socket
      .on("error", () => {})
      .on("close", () => {
        closed = true;
      });
    // Until the answers fill what the kernels hold between the two.
    await eventually(() => {
      socket.write("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
      return closed;
    }, 30_000);
  }, 60_000);

  test("requests sent in one go are served one after the other, so many and no more", async () => {
    let running = 0;
    let most = 0;
    const { url } = await start({
      classify: async (ctx) => {
        most = Math.max(most, ++running);
        await new Promise((resolve) => setTimeout(resolve, 1));
        running--;
        return allYes(ctx);
      },
    });
    const socket = await dial(url);
    const one =
      "POST /api/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: 1\r\n\r\nx";
    socket.write(one.repeat(100));
    const answers = (await readAll(socket)).split("HTTP/1.1 200 OK").length - 1;
    expect(most).toBe(1);
    // The first, and the sixteen that may wait for it; the connection then ends, and with it what it did not answer.
    expect(answers).toBe(17);
  });

  test("a thousand requests sent in one go cost little more: what is beyond those is not even parsed", async () => {
    const { broker, url } = await start();
    const { listener } = broker.getLocalService("gateway") as unknown as { listener: Listener };
    let made = 0;
    listener.server.on("request", () => made++);
    const socket = await dial(url);
    socket.write("GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000));
    expect((await readAll(socket)).split("HTTP/1.1 200 OK").length - 1).toBe(17);
    // A write may arrive in two parts, of which the second was parsed before the pause.
    expect(made).toBeLessThan(100);
  });

  test("a few requests sent in one go are all answered, in their order", async () => {
    const { url } = await start();
    const socket = await dial(url);
    socket.write(
      "GET /api/models/cat HTTP/1.1\r\nhost: x\r\n\r\nGET /api/nothing HTTP/1.1\r\nhost: x\r\n\r\n" +
        "GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    );
    const answers = (await readAll(socket)).match(/HTTP\/1\.1 \d+/g);
    expect(answers).toEqual(["HTTP/1.1 200", "HTTP/1.1 404", "HTTP/1.1 200"]);
  });

  test("clients that ask for a tunnel and reset the connection do no harm", async () => {
    const { url } = await start();
    for (let client = 0; client < 20; client++) {
      const socket = await dial(url);
      socket.write("CONNECT example.com:443 HTTP/1.1\r\nhost: example.com\r\n\r\n");
      // With its answer on the way, or unread, or before.
      if (client % 3 === 0) await once(socket, "readable");
      if (client % 3 === 1) await new Promise((resolve) => setImmediate(resolve));
      socket.resetAndDestroy();
    }
    expect((await http(`${url}/health/live`)).status).toBe(200);
  });

  test("a body in tiny chunks is refused, and not read on for long, nor parsed", async () => {
    const { broker, url } = await start();
    const { listener } = broker.getLocalService("gateway") as unknown as { listener: Listener };
    const accepted = once(listener.server, "connection");
    const socket = await dial(url);
    socket.write(`${POST}transfer-encoding: chunked\r\n\r\n${"1\r\nx\r\n".repeat(200_000)}`);
    const [serving] = (await accepted) as [Socket & { readonly parser: { readonly _consumed: boolean } }];
    expect(serving.parser._consumed).toBe(true);
    const answer = readAll(socket);
    await eventually(() => !serving.parser._consumed);
    expect(await answer).toMatch(/^HTTP\/1\.1 400 /);
  });

  test("an address in absolute form is the same address", async () => {
    const { url } = await start();
    const socket = await dial(url);
    socket.write("GET http://example.com/api/models/cat HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    expect(await readAll(socket)).toMatch(/^HTTP\/1\.1 200 OK/);
  });

  test("a client that ends its side is gone: what it asked is cancelled, and the connection closed", async () => {
    const asked = gate();
    const { url } = await start({
      classify: () => {
        asked.resolve();
        return new Promise(() => {});
      },
    });
    const socket = await dial(url);
    socket.write(
      "POST /api/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: 1\r\n\r\nx",
    );
    await asked.promise;
    socket.end();
    expect(await readAll(socket)).toBe("");
  });

  test("a body that trickles is given up", async () => {
    const { url, logged } = await start({ http: { bodyTimeoutMs: 200 } });
    const socket = await dial(url);
    socket.write(
      "POST /api/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: 1000\r\n\r\n",
    );
    const trickle = setInterval(() => socket.write("x"), 20);
    const answer = await readAll(socket).finally(() => clearInterval(trickle));
    expect(answer).toMatch(/^HTTP\/1\.1 408 /);
    expect(answer).toContain('"SLOW_REQUEST"');
    expect(logged()).toEqual([]);
  });

  test("a head that trickles is given up", async () => {
    const { url } = await start({ http: { bodyTimeoutMs: 200 } });
    const socket = await dial(url);
    socket.write("GET /api/models HTTP/1.1\r\nhost:");
    const answer = await readAll(socket);
    expect(answer).toMatch(/^HTTP\/1\.1 408 /);
    expect(answer).toContain('"SLOW_REQUEST"');
  });

  test.each([
    ["a head of 64 KB", `GET /api/models HTTP/1.1\r\nhost: x\r\nx-big: ${"x".repeat(65_536)}\r\n\r\n`, 431],
    ["what is not HTTP", "hello\r\n\r\n", 400],
    ["a TLS handshake", "\x16\x03\x01\x02\x00\x01\x00", 400],
    ["a length that is none", `${POST}content-length: -1\r\n\r\n`, 400],
    ["two lengths", `${POST}content-length: 1\r\ncontent-length: 2\r\n\r\nab`, 400],
    [
      "a length beside chunks",
      `${POST}content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`,
      400,
    ],
    ["a broken chunk", `${POST}transfer-encoding: chunked\r\n\r\nzz\r\n`, 400],
    ["a coding that is not chunked", `${POST}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n`, 501],
    ["no coding by name", `${POST}transfer-encoding: identity\r\n\r\n`, 501],
    ["chunked before another coding", `${POST}transfer-encoding: chunked, identity\r\n\r\n`, 400],
    ["a blank before the colon", `${POST}transfer-encoding : chunked\r\n\r\n0\r\n\r\n`, 400],
    ["chunks in HTTP/1.0", "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400],
    ["no Host", "GET /api/models HTTP/1.1\r\n\r\n", 400],
    ["two Hosts", "GET /api/models HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400],
    ["another expectation", `${POST}expect: a-miracle\r\ncontent-length: 1\r\n\r\nx`, 417],
    ["a wish for a tunnel", "CONNECT example.com:443 HTTP/1.1\r\nhost: example.com\r\n\r\n", 405],
    ["the server as a whole", "OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", 400],
    ["HTTP/0.9", "GET /api/models\r\n\r\n", 505],
    ["HTTP/2.0", "GET /api/models HTTP/2.0\r\nhost: x\r\n\r\n", 505],
    ["HTTP/2's own opening", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505],
    ["HTTP/3.7", "GET /api/models HTTP/3.7\r\nhost: x\r\n\r\n", 505],
  ])("%s is answered in the shape of an error", async (_, bytes, status) => {
    const { url, logged } = await start();
    const socket = await dial(url);
    socket.write(bytes);
    const answer = await readAll(socket);
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect(JSON.parse(answer.split("\r\n\r\n")[1] ?? "")).toEqual({
      error: {
        code: expect.any(String),
        message: expect.any(String),
        retryable: false,
        requestId: expect.any(String),
      },
    });
    expect(logged()).toEqual([]);
    expect((await http(`${url}/api/classify`, IMAGE)).status).toBe(200);
  });
});

describe("on the bus", () => {
  test.each(["addRoute", "removeRoute", "listAliases"])(
    "nobody can call the gateway's %s",
    async (action) => {
      const { broker } = await start();
      await expect(broker.call(`gateway.${action}`, { route: { path: "/x" } })).rejects.toMatchObject({
        type: "SERVICE_NOT_FOUND",
      });
    },
  );
});

describe("a gateway without a dispatcher", () => {
  test("is not ready, and is again when there is one", async () => {
    const { url, broker } = await start();
    expect((await http(`${url}/health/ready`)).status).toBe(200);
    await broker.destroyService("dispatcher");
    const reply = await http(`${url}/health/ready`);
    expect([reply.status, reply.json().missing]).toEqual([503, ["dispatcher"]]);
    expect((await http(`${url}/health/live`)).status).toBe(200);
    broker.createService({ name: "dispatcher", actions: { ask: () => ({ items: [] }) } });
    await eventually(async () => (await http(`${url}/health/ready`)).status === 200);
  });
});

describe("a gateway whose dispatchers are elsewhere", () => {
  test("is not ready while none of them has what it needs, and is again when one has", async () => {
    const node = (nodeID: string) => {
      const broker = new ServiceBroker({
        nodeID,
        namespace: `elsewhere-${process.pid}`,
        logger: false,
        transporter: "Fake",
        heartbeatInterval: 1,
        middlewares: [Load()],
      });
      brokers.push(broker);
      return broker;
    };
    const dispatchers = ["dispatcher-1", "dispatcher-2"].map((nodeID) => {
      const broker = node(nodeID);
      const its = { decoder: true };
      broker.createService({ name: "dispatcher", actions: { ask: () => ({ items: [] }) } });
      healthOf(broker).require({ name: "decoder", probe: "ready", met: () => its.decoder });
      return { broker, its };
    });
    const door = node("gateway-1");
    door.createService({ name: "gateway", mixins: [gateway], settings: { port: 0, ip: "127.0.0.1" } });
    await Promise.all([door.start(), ...dispatchers.map(({ broker }) => broker.start())]);
    healthOf(door).ready();
    const { listener } = door.getLocalService("gateway") as unknown as { listener: Listener };
    const { port } = listener.server.address() as AddressInfo;
    const missing = async () => (await http(`http://127.0.0.1:${port}/health/ready`)).json().missing;
    await eventually(async () => expect(await missing()).toEqual([]));
    const [first, second] = dispatchers;
    if (first) first.its.decoder = false;
    await eventually(() => loadOf(door).table.get("dispatcher-1")?.report?.draining === true);
    expect(await missing()).toEqual([]);
    if (second) second.its.decoder = false;
    await eventually(async () => expect(await missing()).toEqual(["dispatcher"]));
    if (first) first.its.decoder = true;
    await eventually(async () => expect(await missing()).toEqual([]));
  });
});

describe("a stop", () => {
  test("finishes what is in flight, closes what is idle and takes nothing new", async () => {
    const asked = gate();
    const free = gate();
    const { url, broker } = await start({
      classify: async (ctx) => {
        asked.resolve();
        await free.promise;
        return allYes(ctx);
      },
    });
    const agent = new Agent({ keepAlive: true });
    const neverUsed = await dial(url);
    await http(`${url}/api/models`, { agent });
    const idle = Object.values(agent.freeSockets)[0]?.[0];
    const inFlight = http(`${url}/api/classify`, { ...IMAGE, agent: new Agent({ keepAlive: true }) });
    await asked.promise;
    brokers.splice(brokers.indexOf(broker), 1);
    const stopped = broker.stop();
    await Promise.all([once(neverUsed, "close"), idle && once(idle, "close")]);
    await expect(http(`${url}/api/models`)).rejects.toMatchObject({ code: "ECONNREFUSED" });
    free.resolve();
    const reply = await inFlight;
    expect([reply.status, reply.headers.connection]).toEqual([200, "close"]);
    await stopped;
  });

  test("lets the rest of a refused request come, for a moment", async () => {
    const { url, broker } = await start({ http: { maxBufferedBytes: 10 } });
    const refuse = async () => {
      const socket = await dial(url);
      socket.write(
        "POST /api/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: 200\r\n\r\nx",
      );
      const [answer] = (await once(socket, "data")) as [Buffer];
      expect(answer.toString()).toMatch(/^HTTP\/1\.1 503 /);
      return { socket, closed: once(socket, "close") };
    };
    const [finishing, silent] = [await refuse(), await refuse()];
    brokers.splice(brokers.indexOf(broker), 1);
    const stopped = broker.stop();
    finishing.socket.write("x".repeat(199));
    await expect(finishing.closed).resolves.toEqual([false]);
    await Promise.all([stopped, silent.closed]);
  });
});
