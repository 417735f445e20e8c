import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ModelDescription, VersionDescription } from "../../lib/models/catalog.ts";
import { eventually } from "../../testkit/eventually.ts";
import { http } from "../../testkit/http.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";
import { putTimes } from "../../testkit/versions.ts";

/** Versions that come and go under a server of its own process, with the real runtime. */

let models: string;
let server: TestServer;

beforeEach(async () => {
  models = mkdtempSync(join(tmpdir(), "swap-"));
  putTimes(models, 1);
}, 90_000);

afterEach(async () => {
  await server?.stop();
  rmSync(models, { recursive: true, force: true });
}, 30_000);

async function start(env: Record<string, string> = {}): Promise<void> {
  server = await startServer({
    SERVICES: "gateway,dispatcher,times",
    SERVICES_DIRS: "services,test/fixtures/services",
    MODELS_DIR: models,
    MODELS_POLL_MS: "200",
    NODE_ID: "only",
    LOG_FORMAT: "json",
    ...env,
  });
}

interface Reply {
  readonly status: number;
  readonly y: readonly number[] | undefined;
  readonly version: number;
}

let asked = 0;

/** Asks about numbers that nothing was asked about before. */
async function ask(value = ++asked): Promise<Reply> {
  const reply = await http(`${server.url}/api/models/times/predict`, {
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ inputs: { x: [value, 1, 0] } }),
  });
  const result = reply.json().results?.times;
  return { status: reply.status, y: result?.outputs?.y, version: result?.model?.version ?? 0 };
}

async function described(): Promise<ModelDescription> {
  return (await http(`${server.url}/api/models/times`)).json() as ModelDescription;
}

async function version(number: number): Promise<VersionDescription | undefined> {
  return (await described()).versions.find((each) => each.version === number);
}

const state = async (number: number) => (await version(number))?.state;

/** Processes that the server has started: decoders and engines. */
function engines(): number {
  const children = readFileSync(`/proc/${server.process.pid}/task/${server.process.pid}/children`, "utf8");
  return children
    .split(" ")
    .filter((pid) => pid !== "")
    .filter((pid) => readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("engines/child")).length;
}

/** Asks one after another until told to stop; each answer must be right for the version that it names. */
function traffic(): { stop(): Promise<readonly Reply[]> } {
  let going = true;
  const replies: Reply[] = [];
  const one = async () => {
    while (going) {
      const value = ++asked;
      const reply = await ask(value);
      expect([reply.status, reply.y]).toEqual([200, [(reply.version + 1) * value, reply.version + 1, 0]]);
      replies.push(reply);
    }
  };
  const all = Promise.all([one(), one(), one(), one()]);
  all.catch(() => {});
  return {
    async stop() {
      going = false;
      await all;
      return replies;
    },
  };
}

test("a new version takes over under traffic: nothing fails, the old engines end", async () => {
  await start();
  const before = engines();
  const load = traffic();
  await eventually(async () => (await ask()).version === 1);
  putTimes(models, 2);
  await eventually(async () => (await ask()).version === 2, 60_000);
  await eventually(async () => (await state(1)) === "available", 60_000);
  const replies = await load.stop();
  expect(new Set(replies.map((reply) => reply.version))).toEqual(new Set([1, 2]));
  // Once it had taken over, nothing was answered by the old one.
  const after = replies.slice(replies.findIndex((reply) => reply.version === 2) + 8);
  expect(after.filter((reply) => reply.version === 1)).toEqual([]);
  await eventually(() => engines() === before);
  expect(await described()).toMatchObject({
    state: "ready",
    model: { version: 2 },
    versions: [
      {
        version: 2,
        state: "ready",
        engine: expect.stringMatching(/^ONNX Runtime/),
        nodes: { only: "ready" },
      },
      { version: 1, state: "available" },
    ],
  });
  expect(server.log()).toMatch(/"Version is proven"/);
}, 180_000);

test("a version that fails on its first inputs is taken back; nobody notices", async () => {
  await start();
  putTimes(models, 2, { failsOnNegative: true });
  await eventually(async () => (await state(2)) === "ready", 60_000);
  // 6 of 50 are one too many; each is answered by the old version.
  for (let i = 1; i <= 6; i++) {
    const value = -1000 - i;
    expect(await ask(value)).toEqual({ status: 200, y: [2 * value, 2, 0], version: 1 });
  }
  await eventually(async () => (await state(2)) === "failed", 30_000);
  expect(await version(2)).toMatchObject({ error: "6 of its first 6 items failed" });
  expect(await ask()).toMatchObject({ status: 200, version: 1 });
  const { text } = await http(`${server.url}/metrics`);
  expect(text).toMatch(/^model_versions_total\{model="times",event="taken back"\} 1$/m);
}, 180_000);

test("the host goes back to the old version and tries the new one on some, in one process", async () => {
  const key = "0123456789abcdef";
  await start({ ADMIN_KEYS: `me=${key}` });
  const admin = async (op: string, params: object) =>
    (
      await http(`${server.url}/api/admin/${op}`, {
        headers: { "content-type": "application/json", authorization: `Bearer ${key}` },
        body: JSON.stringify({ model: "times", ...params }),
      })
    ).json();
  putTimes(models, 2);
  await eventually(async () => (await ask()).version === 2, 60_000);
  expect(await admin("rollback", {})).toMatchObject({ nodes: { only: "heard" } });
  await eventually(async () => (await ask()).version === 1, 60_000);
  await admin("label", { label: "canary", version: 2, share: 0.5 });
  const seen = new Set<number>();
  await eventually(async () => seen.add((await ask()).version).size === 2, 60_000);
  await admin("label", { label: "canary", version: null });
  await admin("label", { label: "stable", version: null });
  await eventually(async () => (await ask()).version === 2, 60_000);
}, 180_000);

test("nothing is looked for between polls", async () => {
  await start({ MODELS_POLL_MS: "0" });
  putTimes(models, 2);
  for (let i = 0; i < 20; i++) expect((await ask()).version).toBe(1);
  expect(await version(2)).toBeUndefined();
}, 120_000);
