import type { ServerResponse } from "node:http";
import { ServiceBroker } from "moleculer";
import type { Lease } from "../../lib/engines/leases.ts";
import { leaseNetwork, type NetworkSettings } from "../../lib/engines/node.ts";
import { type RemotePart, remoteOf } from "../../lib/engines/remote/part.ts";
import type { Tensors } from "../../lib/engines/tensors.ts";
import { healthOf, healthResponse } from "../../lib/telemetry/health.ts";
import { eventually } from "../../testkit/eventually.ts";
import { RemoteStandIn, sendJson } from "../../testkit/remote.ts";

let server: RemoteStandIn;
let broker: ServiceBroker;
const leases: Lease[] = [];

beforeEach(() => {
  server = new RemoteStandIn();
  broker = new ServiceBroker({ logger: false, skipProcessEventRegistration: true });
  healthOf(broker).ready();
});
afterEach(async () => {
  await Promise.all(leases.splice(0).map((lease) => lease.release()));
  await broker.stop();
  await server.stop().catch(() => {});
});

const PARTS = {
  "open inference, binary": { protocol: "open-inference", binary: true },
  "open inference, JSON": { protocol: "open-inference" },
  "TensorFlow Serving": { protocol: "tensorflow-serving" },
} as const;

async function lease(
  url: string,
  remote: Partial<RemotePart> & Pick<RemotePart, "protocol"> = PARTS["open inference, JSON"],
  more: Partial<NetworkSettings> = {},
) {
  const made = await leaseNetwork(broker, {
    id: { name: "double", version: 1, fingerprint: "f" },
    spec: {
      runtime: "remote",
      dir: "",
      files: [],
      inputs: [{ name: "x", dtype: "float32", shape: [2] }],
      outputs: [{ name: "y", dtype: "float32", shape: [2] }],
      maxBatch: 4,
      // As if the address came out of REMOTE_ENGINES, where it may hold a password.
      remote: {
        ...remoteOf({ model: "double", concurrency: 2, ...remote }),
        url,
      },
    },
    threads: 1,
    instances: 1,
    batching: { maxBatchSize: 4, maxQueueSize: 64 },
    ...more,
  });
  leases.push(made);
  return made;
}

const item = (a: number, b = 0): Tensors => ({
  x: { dtype: "float32", shape: [1, 2], data: Float32Array.of(a, b) },
});
const y = (...data: number[]) => ({
  ok: true,
  value: { y: { dtype: "float32", shape: [1, 2], data: Float32Array.from(data) } },
});
const missing = () => healthResponse(broker, "ready").body.missing;

describe.each(Object.entries(PARTS))("a model on another server (%s)", (_, part) => {
  test("is asked in batches and answers each item", async () => {
    const own = await lease(await server.start(), part);
    const answers = await Promise.all([1, 2, 3].map((n) => own.submit([item(n, -n), item(n + 0.5)])));
    expect(answers).toMatchObject([1, 2, 3].map((n) => [y(2 * n, -2 * n), y(2 * n + 1, 0)]));
    expect(own.network.runtime).toMatch(/^(Open Inference Protocol|TensorFlow Serving) at http:\/\/127/);
  });

  test("is not ready while its server is not, and comes back by itself", async () => {
    const own = await lease(await server.start(), part);
    expect(missing()).toEqual([]);
    server.ready = false;
    await eventually(() => expect(missing()).toEqual(["engines of double/1"]), 20_000);
    await expect(own.submit([item(1)])).rejects.toMatchObject({ type: "MODEL_UNAVAILABLE" });
    expect(healthResponse(broker, "live").status).toBe(200);
    server.ready = true;
    await eventually(() => expect(missing()).toEqual([]), 20_000);
    expect(await own.submit([item(1)])).toMatchObject([y(2, 0)]);
  }, 60_000);
});

test("a server that is away at the start, or restarts, is waited for", async () => {
  const url = await server.start();
  const { port } = server;
  await server.stop();
  const own = await lease(url);
  await eventually(() => expect(own.network.available).toBe(false), 20_000);
  await expect(own.submit([item(1)])).rejects.toMatchObject({ type: "MODEL_UNAVAILABLE" });
  for (let i = 0; i < 2; i++) {
    server = new RemoteStandIn();
    await server.start(port);
    await eventually(() => expect(own.network.state).toBe("up"), 20_000);
    expect(await own.submit([item(3)])).toMatchObject([y(6, 0)]);
    await server.stop();
    await eventually(() => expect(own.network.available).toBe(false), 20_000);
  }
  // A new process would not bring it back.
  expect(healthResponse(broker, "live").status).toBe(200);
}, 90_000);

test("connections are used again, and no more are made than batches at once and one", async () => {
  const own = await lease(await server.start());
  for (let i = 0; i < 30; i++) await Promise.all([1, 2, 3, 4].map((n) => own.submit([item(n)])));
  expect(server.asked.length).toBeGreaterThan(20);
  expect(server.connections).toBeLessThanOrEqual(3);
});

test("a user and a password are sent, and stand in no error", async () => {
  const url = await server.start();
  const own = await lease(url.replace("http://", "http://user:s%40cret@"));
  await own.submit([item(1)]);
  expect(server.asked.at(-1)?.headers.authorization).toBe(
    `Basic ${Buffer.from("user:s@cret").toString("base64")}`,
  );
  expect(own.network.runtime).not.toContain("cret");
  server.behaviour = (_, response) => response.destroy();
  const [settled] = await own.submit([item(1)]);
  expect(JSON.stringify(settled?.ok === false && settled.error)).not.toContain("cret");
});

const OUTPUT = { name: "y", datatype: "FP32", shape: [1, 2], data: [1, 2] };
const output = (change: object) => (_: unknown, response: ServerResponse) =>
  sendJson(response, 200, { outputs: [{ ...OUTPUT, ...change }] });

describe("a server that", () => {
  test.each([
    [
      "gives another shape",
      output({ shape: [1, 3], data: [1, 2, 3] }),
      "PREDICTION_FAILED",
      /but received float32\[1, 3\]/,
    ],
    ["gives fewer values than it says", output({ data: [1] }), "PREDICTION_FAILED", /has 1 values/],
    ["gives another type", output({ datatype: "INT32" }), "PREDICTION_FAILED", /but received int32/],
    ["gives a type that is none of ours", output({ datatype: "FP16" }), "PREDICTION_FAILED", /is FP16/],
    ["gives texts for numbers", output({ data: ["1", "2"] }), "PREDICTION_FAILED", /value of type string/],
    ["gives null for a number", output({ data: [1, null] }), "PREDICTION_FAILED", /value of type null/],
    ["gives another output", output({ name: "z" }), "PREDICTION_FAILED", /received none/],
    [
      "gives what is too large for a float32",
      output({ data: [1, 1e300] }),
      "PREDICTION_FAILED",
      /not finite/,
    ],
    [
      "answers nonsense",
      (_: unknown, response: ServerResponse) => void response.end("<html>"),
      "PREDICTION_FAILED",
      /is no JSON/,
    ],
    [
      "says that an answer has more JSON than bytes",
      (_: unknown, response: ServerResponse) =>
        void response.writeHead(200, { "inference-header-content-length": "9999" }).end("{}"),
      "PREDICTION_FAILED",
      /has 2 bytes/,
    ],
    [
      "refuses the input",
      (_: unknown, response: ServerResponse) => sendJson(response, 400, { error: "no such thing" }),
      "PREDICTION_FAILED",
      /no such thing \(status 400\)/,
    ],
    [
      "fails",
      (_: unknown, response: ServerResponse) => void response.writeHead(500).end("Traceback"),
      "PREDICTION_FAILED",
      /status 500/,
    ],
    [
      "is busy",
      (_: unknown, response: ServerResponse) => sendJson(response, 503, {}),
      "MODEL_UNAVAILABLE",
      /No replica/,
    ],
    [
      "answers too much",
      (_: unknown, response: ServerResponse) => void response.end(Buffer.alloc(200_000)),
      "PREDICTION_FAILED",
      /more than 100000 bytes/,
    ],
    [
      "answers half and closes",
      (_: unknown, response: ServerResponse) => {
        response.writeHead(200, { "content-length": "1000" });
        response.write('{"outputs": [');
        setTimeout(() => response.destroy(), 20);
      },
      "ENGINE_CRASHED",
      /died/,
    ],
    [
      "closes the connection",
      (_: unknown, response: ServerResponse) => void response.destroy(),
      "ENGINE_CRASHED",
      /died/,
    ],
    ["does not answer", () => {}, "ENGINE_CRASHED", /did not answer in 300 ms/],
    [
      "trickles",
      (_: unknown, response: ServerResponse) => {
        const timer = setInterval(() => response.write(" "), 20);
        response.on("close", () => clearInterval(timer));
      },
      "ENGINE_CRASHED",
      /did not answer in 300 ms/,
    ],
  ])(
    "%s costs that request, with the right error, and nothing else",
    async (_, behaviour, type, message) => {
      const own = await lease(await server.start(), {
        ...PARTS["open inference, JSON"],
        timeoutMs: 300,
        maxResponseBytes: 100_000,
      });
      server.behaviour = behaviour;
      expect(await own.submit([item(1)])).toMatchObject([
        { ok: false, error: { type, message: expect.stringMatching(message) } },
      ]);
      server.behaviour = undefined;
      await eventually(() => expect(own.network.state).toBe("up"), 20_000);
      await eventually(async () => expect(await own.submit([item(2)])).toMatchObject([y(4, 0)]), 20_000);
    },
    60_000,
  );
});

test("a bad item fails alone; a busy server is not asked again for each item", async () => {
  const own = await lease(await server.start(), { ...PARTS["open inference, JSON"], concurrency: 1 });
  server.behaviour = (_, response, body) => {
    const { inputs } = JSON.parse(String(body)) as { inputs: [{ data: number[]; shape: number[] }] };
    const [{ data, shape }] = inputs;
    if (data.includes(13)) sendJson(response, 422, { error: "13" });
    else sendJson(response, 200, { outputs: [{ ...OUTPUT, shape, data }] });
  };
  const settled = await own.submit([item(1), item(13), item(3), item(4)]);
  expect(settled.map(({ ok }) => ok)).toEqual([true, false, true, true]);
  server.behaviour = (_, response) => sendJson(response, 429, {});
  const before = server.asked.length;
  const refused = await own.submit([item(1), item(2), item(3), item(4)]);
  expect(refused).toMatchObject(new Array(4).fill({ ok: false, error: { type: "MODEL_UNAVAILABLE" } }));
  expect(server.asked.length - before).toBe(1);
});

test("a deadline ends the request there; so does a client that hangs up", async () => {
  const own = await lease(await server.start());
  server.behaviour = () => {};
  expect(await own.submit([item(1)], { deadline: performance.now() + 200 })).toMatchObject([
    { ok: false, error: { type: "DEADLINE_EXCEEDED" } },
  ]);
  await eventually(() => expect(server.abandoned).toBe(1));
  const client = new AbortController();
  const hungUp = own.submit([item(1)], { signal: client.signal });
  await eventually(() => expect(server.asked.length).toBeGreaterThan(1));
  const before = server.abandoned;
  client.abort();
  expect(await hungUp).toMatchObject([{ ok: false, error: { type: "CANCELLED" } }]);
  await eventually(() => expect(server.abandoned).toBeGreaterThan(before));
  expect(own.network.state).toBe("up");
});

test("a server that computes something else than the manifest says is not asked", async () => {
  const url = await server.start();
  const spec = { inputs: [{ name: "x", dtype: "float32", shape: [3] }] as const };
  const other = await lease(url, undefined, {
    spec: {
      runtime: "remote",
      dir: "",
      files: [],
      ...spec,
      outputs: [{ name: "y", dtype: "float32", shape: [2] }],
      maxBatch: 4,
      remote: remoteOf({ protocol: "open-inference", model: "double", url }),
    },
  });
  await eventually(() => expect(other.network.available).toBe(false), 20_000);
  expect(server.asked).toHaveLength(0);
});

test("a golden example that comes out differently keeps it from being asked, until it comes out right", async () => {
  let wrong: string | undefined = "something else";
  const own = await lease(await server.start(), undefined, { prove: async () => wrong });
  await eventually(() => expect(own.network.available).toBe(false), 20_000);
  wrong = undefined;
  await eventually(() => expect(own.network.state).toBe("up"), 20_000);
}, 60_000);

test("without an address the model cannot be loaded, and the message says how to give it one", async () => {
  await expect(lease("")).rejects.toThrow("REMOTE_ENGINES=double=http://");
});
