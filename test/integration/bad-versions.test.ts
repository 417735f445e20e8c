import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { VersionDescription } from "../../lib/models/catalog.ts";
import { model, node, tensor, value } from "../../lib/onnx/build.ts";
import { TYPE, writeModel } from "../../lib/onnx/proto.ts";
import { eventually } from "../../testkit/eventually.ts";
import { http } from "../../testkit/http.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";
import { putTimes, type TimesOptions } from "../../testkit/versions.ts";

/** Versions that must never take over, in the real runtime: the old one serves on, and it is said what is wrong. */

let models: string;
let server: TestServer;
let next = 2;

beforeAll(async () => {
  models = mkdtempSync(join(tmpdir(), "bad-versions-"));
  putTimes(models, 1);
  server = await startServer({
    SERVICES: "gateway,dispatcher,times",
    SERVICES_DIRS: "services,test/fixtures/services",
    MODELS_DIR: models,
    MODELS_POLL_MS: "150",
    LOG_FORMAT: "json",
  });
}, 90_000);

afterAll(async () => {
  await server?.stop();
  rmSync(models, { recursive: true, force: true });
}, 30_000);

async function version(number: number): Promise<VersionDescription | undefined> {
  const reply = await http(`${server.url}/api/models/times`);
  return (reply.json().versions as VersionDescription[]).find((each) => each.version === number);
}

async function ask(): Promise<unknown> {
  const reply = await http(`${server.url}/api/models/times/predict`, {
    headers: { "content-type": "application/json", "cache-control": "no-store" },
    body: JSON.stringify({ inputs: { x: [1, 2, 3] } }),
  });
  const { outputs, model } = reply.json().results.times;
  return [reply.status, outputs.y, model.version];
}

const graph = (op: string, factor = 2, batch: number | string = "n") =>
  writeModel(
    model({
      name: "times",
      input: [value("x", TYPE.float, [batch, 3])],
      output: [value("y", TYPE.float, [batch, 3])],
      initializer: [tensor("factor", Float32Array.of(factor), [])],
      node: [node(op, ["x", "factor"], "y")],
    }),
  );

const manifest =
  (change: object): NonNullable<TimesOptions["manifest"]> =>
  (made) => ({ ...made, golden: [], ...change });
const spec = (name: string, shape: readonly number[]) => [{ name, dtype: "float32", shape }];

test.each<[string, TimesOptions, RegExp]>([
  ["a truncated graph", { graph: (file) => file.subarray(0, file.length - 20) }, /cannot be loaded/],
  ["a graph of any bytes", { graph: () => randomBytes(5000) }, /cannot be loaded/],
  ["an empty model", { graph: () => Buffer.from([8, 7]) }, /cannot be loaded/],
  ["an operator that the engine lacks", { graph: () => graph("Frobnicate") }, /cannot be loaded/],
  ["weights that are no numbers", { graph: () => graph("Mul", Number.NaN) }, /not finite/],
  ["a fixed batch", { graph: () => graph("Mul", 2, 1) }, /computes 1 at once/],
  ["an input of another shape", { manifest: manifest({ inputs: spec("x", [4]) }) }, /Expected an input "x"/],
  ["an input of another name", { manifest: manifest({ inputs: spec("z", [3]) }) }, /Expected an input "z"/],
  [
    "an output that it does not have",
    { manifest: manifest({ outputs: spec("z", [3]) }) },
    /Expected an output "z"/,
  ],
  [
    "an output of another shape",
    { manifest: manifest({ outputs: spec("y", [2]) }) },
    /Expected an output "y"/,
  ],
  ["a golden example that comes out differently", { promised: 9 }, /golden example 0/],
  ["a runtime that there is not", { manifest: manifest({ format: "abacus" }) }, /abacus/],
  [
    "another manifest's digest",
    { manifest: (made) => ({ ...made, files: [{ ...made.files[0], sha256: "0".repeat(64) }] }) },
    /sha256 of model.onnx/,
  ],
  [
    "a misspelt key",
    { manifest: (made) => ({ ...made, licens: "MIT" }) },
    /did you mean "licence"|Unknown key "licens"/,
  ],
])(
  "a version with %s does not take over",
  async (_, options, reason) => {
    const number = next++;
    putTimes(models, number, options);
    await eventually(
      async () =>
        expect(await version(number)).toMatchObject({
          state: "failed",
          error: expect.stringMatching(reason),
        }),
      30_000,
    );
    const told = (await version(number))?.error ?? "";
    expect(told).not.toContain(models);
    expect(await ask()).toEqual([200, [2, 4, 6], 1]);
    expect(server.process.exitCode).toBeNull();
    rmSync(join(models, "times", String(number)), { recursive: true });
    await eventually(async () => (await version(number)) === undefined, 10_000);
  },
  60_000,
);

test("a folder that vanishes while it is loaded takes nothing along", async () => {
  const number = next++;
  // Its digest takes a while.
  const bytes = 400 << 20;
  const zeros = createHash("sha256");
  for (let left = bytes; left > 0; left -= 1 << 20) zeros.update(Buffer.alloc(1 << 20));
  const extra = { path: "large.bin", bytes, sha256: zeros.digest("hex") };
  const dir = putTimes(models, number, { manifest: (made) => ({ ...made, files: [...made.files, extra] }) });
  writeFileSync(join(dir, "large.bin"), "");
  truncateSync(join(dir, "large.bin"), bytes);
  await eventually(async () => (await version(number))?.state === "loading", 30_000);
  rmSync(dir, { recursive: true });
  await eventually(async () => (await version(number)) === undefined, 60_000);
  expect(server.log()).toMatch(/"Version cannot serve"/);
  expect(await ask()).toEqual([200, [2, 4, 6], 1]);
}, 120_000);

test("two hundred versions are listed, and the newest serves", async () => {
  const copy = mkdtempSync(join(tmpdir(), "many-versions-"));
  for (let number = 1; number <= 200; number++) putTimes(copy, number);
  const many = await startServer({
    SERVICES: "gateway,dispatcher,times",
    SERVICES_DIRS: "services,test/fixtures/services",
    MODELS_DIR: copy,
  });
  try {
    const { model: serves, versions } = (await http(`${many.url}/api/models/times`)).json();
    expect(serves.version).toBe(200);
    expect(versions.length).toBeLessThanOrEqual(24);
    expect(versions[1]).toMatchObject({ version: 199, state: "available" });
  } finally {
    await many.stop();
    rmSync(copy, { recursive: true, force: true });
  }
}, 120_000);

test("a good version takes over after all of these", async () => {
  const number = next++;
  putTimes(models, number, { factor: 5 });
  await eventually(async () => expect(await ask()).toEqual([200, [5, 10, 15], number]), 30_000);
  const children = readFileSync(`/proc/${server.process.pid}/task/${server.process.pid}/children`, "utf8");
  // Decoders, and the engines of at most two versions: of those that failed no process is left.
  expect(children.trim().split(" ").length).toBeLessThanOrEqual(3 * 3);
}, 60_000);
