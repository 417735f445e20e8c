import { cpSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { routeOf } from "../../lib/models/identity.ts";
import { identityOf, readManifest } from "../../lib/models/manifest.ts";
import { eventually } from "../../testkit/eventually.ts";
import { http } from "../../testkit/http.ts";
import { brokerUrl, deleteNamespace, releaseBroker } from "../../testkit/rabbitmq.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";

/** The whole way of another kind than images, and of replicas that differ, over RabbitMQ and with real engines. */

const FIXTURES = resolve(import.meta.dirname, "../fixtures");
const namespace = `kinds-test-${process.pid}`;
const servers: TestServer[] = [];
let transporter: string;
let folder: string;

/** A process with some services; its models are these versions of `times`. */
async function start(name: string, services: string, versions: readonly number[] = []): Promise<TestServer> {
  const models = join(folder, name);
  mkdirSync(models);
  for (const version of versions) {
    const path = join("times", String(version));
    cpSync(join(FIXTURES, "models", path), join(models, path), { recursive: true });
  }
  const server = await startServer({
    SERVICES: services,
    SERVICES_DIRS: "services,test/fixtures/services",
    MODELS_DIR: models,
    NODE_ID: name,
    TRANSPORTER: transporter,
    NAMESPACE: namespace,
    ENGINE_THREADS: "1",
    STEAL_AFTER_MS: "200",
  });
  servers.push(server);
  return server;
}

interface Reply {
  readonly status: number;
  readonly y: readonly number[] | undefined;
  readonly version: number | undefined;
  readonly node: string | undefined;
  readonly cached: boolean;
  readonly batchSize: number | undefined;
  readonly json: Readonly<Record<string, never>>;
}

async function ask(url: string, body: unknown, headers: Record<string, string> = {}): Promise<Reply> {
  const reply = await http(`${url}/api/models/times/predict`, {
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
  const json = reply.json();
  const result = json.results?.times;
  return {
    status: reply.status,
    y: result?.outputs?.y,
    version: result?.model?.version,
    node: result?.node,
    cached: result?.cached === true,
    batchSize: result?.batchSize,
    json,
  };
}

const x = (...values: number[]) => ({ inputs: { x: values } });

interface Listed {
  readonly name: string;
  readonly state: string;
  readonly replicas: readonly string[];
}

async function times(url: string): Promise<Listed | undefined> {
  const { models } = (await http(`${url}/api/models`)).json() as { models: readonly Listed[] };
  return models.find(({ name }) => name === "times");
}

const replicas = (url: string, count: number) =>
  eventually(async () => (await times(url))?.replicas.length === count, 30_000);

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "kinds-"));
  transporter = await brokerUrl();
}, 120_000);

afterAll(async () => {
  for (const { process } of servers) process.kill("SIGCONT");
  await Promise.all(servers.map((server) => server.stop()));
  const routes = [1, 2].map((version) =>
    routeOf(identityOf(readManifest(join(FIXTURES, "models/times", String(version))))),
  );
  await deleteNamespace(namespace, transporter, [
    "dispatcher.ask",
    "times.predict",
    ...routes.map((route) => `${route}.times.predict`),
  ]);
  await releaseBroker();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

describe("a model of numbers", () => {
  let url: string;
  let door: TestServer | undefined;
  let first: TestServer;

  beforeAll(async () => {
    const [gate, model] = await Promise.all([
      start("door", "gateway,dispatcher"),
      start("one-a", "times", [1]),
    ]);
    door = gate;
    url = gate.url;
    first = model;
    await replicas(url, 1);
  }, 120_000);

  // Its dispatcher has a cache of its own.
  afterAll(() => door?.stop());

  test("takes JSON and answers numbers", async () => {
    const { status, json } = await ask(url, x(1, 2.5, -3));
    expect(status).toBe(200);
    expect(json).toEqual({
      requestId: expect.any(String),
      input: { sha256: expect.stringMatching(/^[0-9a-f]{64}$/), bytes: 27 },
      results: {
        times: {
          outputs: { y: [2, 5, -6] },
          model: { name: "times", version: 1 },
          node: "one-a",
          batchSize: 1,
          dispatchReason: "idle",
          timing: { queueMs: expect.any(Number), computeMs: expect.any(Number) },
        },
      },
      timing: { decodeMs: expect.any(Number), totalMs: expect.any(Number) },
    });
  });

  test("is kept by content, whatever its spaces, unless that is not wanted", async () => {
    expect((await ask(url, x(7, 7, 7))).cached).toBe(false);
    const again = await http(`${url}/api/models/times/predict`, {
      headers: { "content-type": "application/json" },
      body: `{ "inputs" : { "x" : [ 7.0, 7, 7 ] } }`,
    });
    expect(again.json().results.times).toMatchObject({ outputs: { y: [14, 14, 14] }, cached: true });
    expect((await ask(url, x(7, 7, 7), { "cache-control": "no-store" })).cached).toBe(false);
  });

  test("answers several in one body, in their order and in batches", async () => {
    // As many as one request may have: some come while others are computed.
    const items = Array.from({ length: 16 }, (_, i) => x(i, 0, 1));
    const { status, json } = await ask(url, { items });
    const results = (
      json["items"] as unknown as { results: { times: { outputs: { y: number[] }; batchSize: number } } }[]
    ).map(({ results }) => results.times);
    expect([status, results.map(({ outputs }) => outputs.y)]).toEqual([
      200,
      items.map((_, i) => [2 * i, 0, 2]),
    ]);
    expect(Math.max(...results.map(({ batchSize }) => batchSize))).toBeGreaterThan(1);
  });

  test.each<[string, unknown, number, string]>([
    ["no inputs", {}, 400, "for inputs"],
    ["another shape", x(1, 2), 400, `Expected float32[3] for "x" but received [1,2]`],
    ["texts", { inputs: { x: ["a", "b", "c"] } }, 400, `for "x"`],
    ["an input it does not have", { inputs: { x: [1, 2, 3], z: [1] } }, 400, `Unknown key "z" in inputs`],
    ["no items", { items: [] }, 400, "at least one"],
    ["too many items", { items: Array.from({ length: 17 }, () => x(1, 2, 3)) }, 413, "16 items"],
  ])("refuses %s", async (_, body, status, message) => {
    const reply = await ask(url, body);
    expect([reply.status, JSON.stringify(reply.json["error"])]).toEqual([
      status,
      expect.stringContaining(JSON.stringify(message).slice(1, -1)),
    ]);
  });

  test("refuses an image, and is not asked about one", async () => {
    const image = { headers: { "content-type": "image/png" }, body: "x" };
    expect((await http(`${url}/api/models/times/predict`, image)).status).toBe(415);
    const reply = await http(`${url}/api/classify`, image);
    expect([reply.status, reply.json().error.code]).toEqual([415, "UNSUPPORTED_MEDIA_TYPE"]);
  });

  test("is among all models that take JSON", async () => {
    const reply = await http(`${url}/api/classify`, {
      headers: { "content-type": "application/json" },
      body: JSON.stringify(x(1, 1, 1)),
    });
    expect(reply.json().results.times.outputs).toEqual({ y: [2, 2, 2] });
  });

  test("is listed with its batching and fingerprint, as every node tells it", async () => {
    const listed = await times(url);
    const manifest = readManifest(join(FIXTURES, "models/times/1"));
    expect(listed).toMatchObject({
      model: identityOf(manifest),
      input: { type: "tensor", inputs: manifest.inputs },
      task: "tensor",
      state: "ready",
      batching: { maxBatchSize: 8, maxQueueSize: 128, maxQueueDelayMs: 0, concurrency: 1 },
    });
  });

  test("counts in the metrics of the door, and is unknown to nobody when its last replica leaves", async () => {
    let text = "";
    await eventually(async () => {
      text = (await http(`${url}/metrics`)).text;
      return /^cache_requests_total\{result="hit"\} 1$/m.test(text);
    });
    expect(text).toMatch(/^cache_requests_total\{result="bypass"\} 1$/m);
    expect(text).toMatch(
      /^http_requests_total\{route="\/api\/models\/:model\/predict",status="400"\} [1-9]/m,
    );
    await first.stop();
    await eventually(async () => (await times(url))?.state === "unavailable", 30_000);
    const began = performance.now();
    const { status, json } = await ask(url, x(5, 5, 5));
    expect([status, json["error"]]).toMatchObject([503, { code: "MODEL_UNAVAILABLE", retryable: true }]);
    // At once: the registry knows.
    expect(performance.now() - began).toBeLessThan(5_000);
    // A scrape may be a second old.
    const counted = /^inference_requests_total\{model="times",outcome="MODEL_UNAVAILABLE"\} 1$/m;
    await eventually(async () => counted.test((await http(`${url}/metrics`)).text));
  });
});

describe("replicas whose versions differ", () => {
  let url: string;
  let stuck: TestServer;

  beforeAll(async () => {
    const [door, one] = await Promise.all([
      start("second-door", "gateway,dispatcher"),
      start("one-b", "times", [1]),
      start("one-c", "times", [1]),
      start("two", "times", [1, 2]),
    ]);
    url = door.url;
    stuck = one;
    await replicas(url, 3);
  }, 120_000);

  /** Each answer must be what the version it names computes. */
  async function askMany(count: number, offset: number): Promise<readonly Reply[]> {
    const all = await Promise.all(Array.from({ length: count }, (_, i) => ask(url, x(offset + i, 1, 0))));
    for (const [i, { status, y, version = 0 }] of all.entries()) {
      const factor = version + 1;
      expect([status, y]).toEqual([200, [factor * (offset + i), factor, 0]]);
    }
    return all;
  }

  test("each answer for themselves, and all have their share", async () => {
    const all = await askMany(60, 1000);
    expect(new Set(all.map(({ version }) => version))).toEqual(new Set([1, 2]));
    for (const { node, version } of all) expect(version === 2).toBe(node === "two");
  });

  test("are kept apart in the cache, and one content has one of them", async () => {
    const before = await askMany(20, 2000);
    const after = await askMany(20, 2000);
    expect(after.map(({ version, cached }) => [version, cached])).toEqual(
      before.map(({ version }) => [version, true]),
    );
  });

  test("steal no work of another version", async () => {
    // What waits for it goes to others after a moment: only to those of its version.
    stuck.process.kill("SIGSTOP");
    const all = await askMany(60, 3000);
    for (const { node, version } of all)
      expect([version, node]).toEqual(version === 2 ? [2, "two"] : [1, "one-c"]);
    stuck.process.kill("SIGCONT");
  });
});
