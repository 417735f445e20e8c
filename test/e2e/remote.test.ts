import { eventually } from "../../testkit/eventually.ts";
import { freePort } from "../../testkit/port.ts";
import { RemoteStandIn, sendJson } from "../../testkit/remote.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";

let server: TestServer;
let remote: RemoteStandIn;
let port: number;

beforeAll(async () => {
  port = await freePort();
  // The address has a password, and nobody is there yet.
  const url = `http://user:s%40cret@127.0.0.1:${port}`;
  server = await startServer(
    { SERVICES: "gateway,dispatcher,elsewhere", REMOTE_ENGINES: `elsewhere=${url}` },
    ["test/fixtures/services"],
  );
}, 90_000);
afterAll(async () => {
  await server?.stop();
  await remote?.stop().catch(() => {});
});

async function ask(x: readonly number[]) {
  const response = await fetch(`${server.url}/api/models/elsewhere/predict`, {
    method: "POST",
    headers: { "content-type": "application/json", "cache-control": "no-store" },
    body: JSON.stringify({ inputs: { x } }),
  });
  return { status: response.status, answer: (await response.json()) as object };
}
const described = async () => (await fetch(`${server.url}/api/models/elsewhere`)).json();
const ready = async () => (await fetch(`${server.url}/health/ready`)).status;
const isAway = () =>
  eventually(async () => {
    expect(await described()).toMatchObject({ state: "unavailable", replicas: [] });
    expect(await ready()).toBe(503);
    expect(await ask([1, 2])).toMatchObject({
      status: 503,
      answer: { error: { code: "MODEL_UNAVAILABLE" } },
    });
  }, 30_000);

test("a model whose server is away is known, and 503; it answers when its server comes, and after it came back", async () => {
  for (let round = 0; round < 2; round++) {
    await isAway();
    remote = new RemoteStandIn();
    await remote.start(port);
    await eventually(async () => {
      expect(await ready()).toBe(200);
      expect(await described()).toMatchObject({
        state: "ready",
        engine: `Open Inference Protocol at http://127.0.0.1:${port}`,
        batching: { concurrency: 4 },
      });
    }, 30_000);
    expect(await ask([3, -1])).toMatchObject({
      status: 200,
      answer: { results: { elsewhere: { outputs: { y: [6, -2] } } } },
    });
    await remote.stop();
  }
  expect((await fetch(`${server.url}/health/live`)).status).toBe(200);
  expect(server.log()).not.toContain("cret");
}, 120_000);

test("one that gives other answers than its golden example is not asked", async () => {
  await isAway();
  remote = new RemoteStandIn();
  remote.behaviour = (_, response, body) => {
    const { inputs } = JSON.parse(String(body)) as { inputs: [{ shape: [number, number] }] };
    const [{ shape }] = inputs;
    const data = new Array<number>(shape[0] * shape[1]).fill(0);
    sendJson(response, 200, { outputs: [{ name: "y", datatype: "FP32", shape, data }] });
  };
  await remote.start(port);
  await eventually(() => expect(server.log()).toContain("does not make of its golden example 0"), 30_000);
  await isAway();
}, 90_000);
