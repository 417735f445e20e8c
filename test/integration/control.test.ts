import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ModelDescription, VersionDescription } from "../../lib/models/catalog.ts";
import { eventually } from "../../testkit/eventually.ts";
import { http } from "../../testkit/http.ts";
import { brokerUrl, deleteNamespace, releaseBroker } from "../../testkit/rabbitmq.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";
import { putTimes } from "../../testkit/versions.ts";

/** What the host changes while two replicas serve, over RabbitMQ and with real engines. */

const KEY = "a key that nobody guesses".replaceAll(" ", "-");
const namespace = `control-test-${process.pid}`;
const servers: TestServer[] = [];
let transporter: string;
let folder: string;
let door: TestServer;
let a: TestServer;

async function start(name: string, services: string, env: Record<string, string> = {}): Promise<TestServer> {
  const server = await startServer({
    SERVICES: services,
    SERVICES_DIRS: "services,test/fixtures/services",
    MODELS_DIR: join(folder, name),
    MODELS_POLL_MS: "0",
    NODE_ID: name,
    TRANSPORTER: transporter,
    NAMESPACE: namespace,
    ENGINE_THREADS: "1",
    LOG_FORMAT: "json",
    ...env,
  });
  servers.push(server);
  return server;
}

interface Reply {
  readonly status: number;
  readonly y: readonly number[] | undefined;
  readonly version: number;
  readonly node: string;
  readonly code: string | undefined;
}

/** Well within what a gateway and a queue take. */
const AT_ONCE = 50;

let asked = 0;

async function ask(
  address = "predict",
  headers: Record<string, string> = {},
  value = ++asked,
): Promise<Reply> {
  const reply = await http(`${door.url}/api/models/times/${address}`, {
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify({ inputs: { x: [value, 1, 0] } }),
  });
  const { results, error } = reply.json();
  const { outputs, model, node } = results?.times ?? {};
  if (reply.status === 200) expect(outputs.y).toEqual([(model.version + 1) * value, model.version + 1, 0]);
  return { status: reply.status, y: outputs?.y, version: model?.version ?? 0, node, code: error?.code };
}

/** How many requests of many each version gets. */
async function askMany(count: number): Promise<Record<number, number>> {
  const counts: Record<number, number> = {};
  for (let left = count; left > 0; left -= AT_ONCE) {
    const some = Array.from({ length: Math.min(left, AT_ONCE) }, () => ask());
    for (const { status, version } of await Promise.all(some)) {
      expect(status).toBe(200);
      counts[version] = (counts[version] ?? 0) + 1;
    }
  }
  return counts;
}

async function admin(op: string, params: object = {}, key = KEY) {
  const reply = await http(`${door.url}/api/admin/${op}`, {
    headers: { "content-type": "application/json", authorization: `Bearer ${key}` },
    body: JSON.stringify(params),
  });
  return { status: reply.status, json: reply.json() };
}

async function described(): Promise<ModelDescription> {
  return (await http(`${door.url}/api/models/times`)).json() as ModelDescription;
}

async function version(number: number): Promise<VersionDescription | undefined> {
  return (await described()).versions.find((each) => each.version === number);
}

const both = (state: string) => ({ a: state, b: state });

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "control-"));
  for (const node of ["a", "b"]) {
    putTimes(join(folder, node), 1);
    putTimes(join(folder, node), 2);
  }
  transporter = await brokerUrl();
  [door, a] = await Promise.all([
    start("door", "gateway,dispatcher", { ADMIN_KEYS: `alice=${KEY}` }),
    start("a", "times"),
    start("b", "times"),
  ]);
  await eventually(async () => (await described()).replicas?.length === 2, 30_000);
}, 120_000);

afterAll(async () => {
  await Promise.all(servers.map((server) => server.stop()));
  await deleteNamespace(namespace, transporter, ["dispatcher.ask", "times.predict"]);
  await releaseBroker();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

describe("the door for admins", () => {
  test.each([
    ["a wrong key", "wrong-but-long-enough-to-be-one"],
    ["none", ""],
  ])("is closed to %s", async (_, key) => {
    expect(await admin("list", {}, key)).toMatchObject({
      status: 401,
      json: { error: { code: "UNAUTHORIZED" } },
    });
  });

  test.each<[string, string, object, number, string]>([
    ["what there is not", "explode", {}, 404, "nothing at this address"],
    ["a misspelt parameter", "load", { model: "times", versoin: 1 }, 400, 'did you mean "version"'],
    ["a model there is not", "load", { model: "other", version: 1 }, 404, "Unknown model"],
    ["a share above 1", "label", { model: "times", label: "canary", version: 1, share: 2 }, 400, "share"],
    ["a node there is not", "drain", { node: "c" }, 404, "no such node"],
  ])("refuses %s", async (_, op, params, status, message) => {
    const reply = await admin(op, params);
    expect([reply.status, JSON.stringify(reply.json.error)]).toEqual([
      status,
      expect.stringContaining(JSON.stringify(message).slice(1, -1)),
    ]);
  });

  test("lists the models", async () => {
    const { status, json } = await admin("list");
    expect([status, json.models]).toMatchObject([
      200,
      [{ name: "times", versions: [{ version: 2 }, { version: 1 }] }],
    ]);
  });

  test("is not there without a key", async () => {
    const other = await start("other-door", "gateway");
    const reply = await http(`${other.url}/api/admin/list`, { method: "GET" });
    expect([reply.status, reply.json().error.code]).toEqual([404, "NOT_FOUND"]);
    await other.stop();
  }, 60_000);
});

describe("a version", () => {
  test("is loaded besides, and may then be asked for by name", async () => {
    expect((await ask("versions/1/predict")).code).toBe("VERSION_NOT_FOUND");
    const { status, json } = await admin("load", { model: "times", version: 1 });
    expect([status, json]).toMatchObject([200, { revision: expect.any(Number), nodes: both("heard") }]);
    await eventually(async () => expect((await version(1))?.nodes).toEqual(both("ready")), 60_000);
    expect(await ask("versions/1/predict")).toMatchObject({ status: 200, version: 1 });
    expect(await ask("predict?version=1")).toMatchObject({ status: 200, version: 1 });
    expect(await ask("versions/two/predict")).toMatchObject({ status: 400, code: "BAD_REQUEST" });
    expect(await askMany(40)).toEqual({ 2: 40 });
  }, 120_000);

  test("is a canary with its share of keys, which stay with it", async () => {
    await admin("label", { model: "times", label: "stable", version: 2 });
    await admin("label", { model: "times", label: "canary", version: 1, share: 0.3 });
    await eventually(async () => expect(await version(1)).toMatchObject({ labels: ["canary"], share: 0.3 }));
    const counts = await askMany(300);
    expect(counts[1]).toBeGreaterThan(50);
    expect(counts[1]).toBeLessThan(140);
    for (let user = 0; user < 5; user++) {
      const headers = { "x-request-key": `user ${user}` };
      const versions = await Promise.all(
        Array.from({ length: 5 }, async () => (await ask("predict", headers)).version),
      );
      expect(new Set(versions).size).toBe(1);
    }
    expect((await ask("versions/canary/predict")).version).toBe(1);
    expect((await ask("predict?version=stable")).version).toBe(2);
  }, 60_000);

  test("is rolled back to, by one command", async () => {
    const { json } = await admin("rollback", { model: "times" });
    expect(json).toMatchObject({ what: "roll back to version 1", nodes: both("heard") });
    await eventually(async () => expect(await askMany(10)).toEqual({ 1: 10 }));
  }, 60_000);

  test("that is labelled is known to a replica that starts anew: the others' decision is told to it", async () => {
    await a.stop();
    a = await start("a", "times");
    await eventually(async () => expect((await version(1))?.nodes).toEqual(both("ready")), 60_000);
    expect(await version(1)).toMatchObject({ labels: ["stable"] });
    expect(a.log()).toMatch(/"by":"key alice","what":"roll back to version 1"/);
    expect(await askMany(40)).toEqual({ 1: 40 });
  }, 120_000);

  test("that fails on one replica is taken back on all", async () => {
    await admin("label", { model: "times", label: "stable", version: null });
    for (const node of ["a", "b"]) putTimes(join(folder, node), 3, { failsOnNegative: true });
    await admin("refresh", { model: "times" });
    await eventually(async () => expect((await version(3))?.nodes).toEqual(both("ready")), 60_000);
    await eventually(async () => expect((await ask()).version).toBe(3));
    for (let i = 0; i < 20; i++) expect(await ask("predict", {}, -5000 - i)).toMatchObject({ status: 200 });
    await eventually(async () => expect((await version(3))?.nodes).not.toMatchObject({ a: "ready" }), 60_000);
    await eventually(async () => expect((await version(3))?.nodes).not.toMatchObject({ b: "ready" }), 60_000);
    expect((await askMany(10))[3]).toBeUndefined();
  }, 180_000);
});

describe("while it runs", () => {
  test("bounds and concurrency change, and no request fails", async () => {
    let going = true;
    const load = (async () => {
      let count = 0;
      for (; going; count++) expect((await ask()).status).toBe(200);
      return count;
    })();
    await admin("tune", { model: "times", maxBatchSize: 3, maxQueueSize: 50, maxQueueDelayMs: 1 });
    const expected = { maxBatchSize: 3, maxQueueSize: 50, maxQueueDelayMs: 1 };
    await eventually(async () => expect((await described())["batching"]).toMatchObject(expected), 30_000);
    await eventually(() => /"network":"times"|Engines changed/.test(a.log()));
    going = false;
    expect(await load).toBeGreaterThan(0);
  }, 60_000);

  test("a node that is drained gets no more work, and the others go on", async () => {
    expect(await admin("drain", { node: "b" })).toMatchObject({ status: 200, json: { state: "draining" } });
    const nodes = new Set<string>();
    for (let i = 0; i < 30; i++) nodes.add((await ask()).node);
    expect([...nodes]).toEqual(["a"]);
  }, 60_000);

  test("who did what is in the dispatcher's log, and no key", () => {
    expect(door.log()).toMatch(/"by":"key alice","op":"rollback"/);
    expect(servers.map((server) => server.log()).join()).not.toContain(KEY);
  });
});
