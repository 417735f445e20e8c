import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { routeOf } from "../../lib/models/identity.ts";
import { identityOf, readManifest } from "../../lib/models/manifest.ts";
import { Clips, ffmpeg } from "../../testkit/clips.ts";
import { eventually } from "../../testkit/eventually.ts";
import { http } from "../../testkit/http.ts";
import { colourModel } from "../../testkit/onnx.ts";
import { brokerUrl, deleteNamespace, releaseBroker } from "../../testkit/rabbitmq.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";

/** Rankings and clips over RabbitMQ: texts as tensors, and a model that asks others in turn. */

const ROOT = resolve(import.meta.dirname, "../..");
const namespace = `examples-test-${process.pid}`;
const folder = mkdtempSync(join(tmpdir(), "examples-"));
const [models, services] = [join(folder, "models"), join(folder, "services")];
let transporter: string;
let url: string;
const servers: TestServer[] = [];

async function start(name: string, names: string): Promise<TestServer> {
  const server = await startServer(
    {
      SERVICES: names,
      SERVICES_DIRS: `services,examples,${services}`,
      NODE_ID: name,
      TRANSPORTER: transporter,
      NAMESPACE: namespace,
      ENGINE_THREADS: "1",
    },
    [],
  );
  servers.push(server);
  return server;
}

beforeAll(async () => {
  const graph = join(folder, "colours.onnx");
  writeFileSync(graph, colourModel());
  const args = ["--labels", "cat,dog,bird", "--group", "cat", "--models", models, "--services", services];
  const added = spawnSync(process.execPath, ["bin/models-add.ts", graph, ...args], {
    cwd: ROOT,
    encoding: "utf8",
  });
  expect(added).toMatchObject({ status: 0 });
  transporter = await brokerUrl();
  const [door] = await Promise.all([
    start("door", "gateway,dispatcher"),
    start("films", "films"),
    start("colours", "colours-cat"),
    start("clips", "video"),
  ]);
  url = door.url;
  await eventually(async () => {
    const list = (await http(`${url}/api/models`)).json().models as { readonly name: string }[];
    return ["films", "colours-cat", "video"].every((name) => list.some((model) => model.name === name));
  }, 30_000);
}, 180_000);

afterAll(async () => {
  await Promise.all(servers.map((server) => server.stop()));
  const routes = [join(ROOT, "examples/models/films/1"), join(models, "colours/1")].map((dir) =>
    routeOf(identityOf(readManifest(dir))),
  );
  await deleteNamespace(namespace, transporter, [
    "dispatcher.ask",
    "films.predict",
    "colours-cat.predict",
    "video.predict",
    `${routes[0]}.films.predict`,
    `${routes[1]}.colours-cat.predict`,
  ]);
  await releaseBroker();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

test("a ranking is the same over the wire, ids of any script included", async () => {
  const reply = await http(`${url}/api/models/films/predict`, {
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ user: "u0001", history: ["f001", "映画", "f002"], limit: 5 }),
  });
  expect(reply.status).toBe(200);
  const { films } = reply.json().results;
  expect(films).toMatchObject({ node: "films", basedOn: { user: true, history: 2 } });
  expect(films.items).toHaveLength(5);
});

test("a node that takes clips apart asks the dispatchers about their frames", async () => {
  const clips = new Clips(await ffmpeg(), folder);
  const clip = await clips.colours("clip.mp4", { red: 2, lime: 1 });
  const ask = async (headers: Record<string, string>) => {
    const reply = await http(`${url}/api/models/video/predict`, {
      headers: { "content-type": "video/mp4", ...headers },
      body: clip,
    });
    expect(reply.status).toBe(200);
    return reply.json().results.video;
  };
  const first = await ask({});
  expect(first).toMatchObject({ node: "clips", summary: { "colours-cat": { moments: 3, yes: 2 } } });
  const cached = ({ moments }: { readonly moments: readonly { readonly answers: object }[] }) =>
    moments.map(({ answers }) => Object.values(answers)[0].cached === true);
  // Frames that look the same are one.
  expect(cached(first)).toContain(false);
  expect(cached(await ask({}))).toEqual([true, true, true]);
  expect(cached(await ask({ "cache-control": "no-store" }))).toEqual([false, false, false]);
}, 60_000);
