import sharp from "sharp";
import { findsNative } from "../../lib/engines/tensorflow/native.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";

let server: TestServer;

beforeAll(async () => {
  server = await startServer({ SERVICES: "gateway,dispatcher,blue" }, ["examples"]);
}, 90_000);
afterAll(() => server?.stop());

const ENGINE = findsNative() ? /^tfjs-node 4/ : /^TensorFlow\.js 4.*WASM/;

async function isBlue(r: number, g: number, b: number): Promise<unknown> {
  const photo = sharp({ create: { width: 90, height: 70, channels: 3, background: { r, g, b } } });
  const response = await fetch(`${server.url}/api/classify?models=blue`, {
    method: "POST",
    headers: { "content-type": "image/png" },
    body: new Uint8Array(await photo.png().toBuffer()),
  });
  const { results } = (await response.json()) as { results: { blue: { answer: boolean } } };
  return results.blue;
}

test.each([
  [30, 60, 220, true, "blue"],
  [220, 40, 30, false, "red"],
  [60, 180, 70, false, "green"],
])("a TensorFlow model of one file says of rgb(%i, %i, %i): blue is %s", async (r, g, b, answer, label) => {
  expect(await isBlue(r, g, b)).toMatchObject({
    answer,
    labels: expect.arrayContaining([{ label, probability: expect.any(Number) }]),
    model: { name: "colours", version: 1 },
  });
});

test("the list of models and the log say what computes it", async () => {
  const response = await fetch(`${server.url}/api/models/blue`);
  expect(await response.json()).toMatchObject({ engine: expect.stringMatching(ENGINE), state: "ready" });
  expect(server.log()).toMatch(/Engines changed .*(tfjs-node|WASM)/);
});
