import sharp from "sharp";
import { eventually } from "../../testkit/eventually.ts";
import { dial, http, readAll } from "../../testkit/http.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";

type Line = Readonly<Record<string, unknown>>;

describe("logs for machines", () => {
  let server: TestServer;

  /** Every line since the start; fails where one is not an object. */
  const lines = () =>
    server
      .log()
      .split("\n")
      .slice(0, -1)
      .map((line) => JSON.parse(line) as Line);
  const accessOf = (requestId: string) =>
    eventually(() => {
      const found = lines().find((line) => line["msg"] === "Request" && line["requestId"] === requestId);
      if (!found) throw new Error(`No line for ${requestId}:\n${server.log()}`);
      return found;
    });
  const picture = sharp({ create: { width: 50, height: 50, channels: 3, background: "teal" } })
    .png()
    .toBuffer();

  beforeAll(async () => {
    server = await startServer({ LOG_FORMAT: "json" });
  }, 90_000);

  afterAll(() => server?.stop());

  test("a classification is one line with route, status, time, bytes, request ID and models", async () => {
    const body = await picture;
    const reply = await http(`${server.url}/api/classify?models=resnet-cat`, {
      headers: { "content-type": "image/png", "x-request-id": "asked-one" },
      body,
    });
    expect(reply.status).toBe(200);
    const line = await accessOf("asked-one");
    expect(line).toMatchObject({
      level: "info",
      mod: "gateway",
      method: "POST",
      route: "/api/classify",
      path: "/api/classify",
      status: 200,
      models: ["resnet-cat"],
      ms: expect.any(Number),
    });
    // Heads included.
    expect(line["bytesIn"]).toBeGreaterThan(body.length);
    expect(line["bytesIn"]).toBeLessThan(body.length + 1_000);
    expect(line["bytesOut"]).toBeGreaterThan(Buffer.byteLength(reply.text));
    expect(lines().filter((each) => each["requestId"] === "asked-one")).toHaveLength(1);
  });

  test.each([
    [
      "/api/classify",
      { body: "text" },
      { route: "/api/classify", status: 415, code: "UNSUPPORTED_MEDIA_TYPE" },
    ],
    ["/api/classify", { method: "GET" }, { route: "/api/classify", status: 405, code: "METHOD_NOT_ALLOWED" }],
    ["/api/models/no-such", {}, { route: "/api/models/:model", status: 404, code: "MODEL_NOT_FOUND" }],
    ["/no/such/address", {}, { route: "none", path: "/no/such/address", status: 404, code: "NOT_FOUND" }],
    ["/api/models/%ff", {}, { route: "none", path: "/api/models/%ff", status: 400, code: "BAD_REQUEST" }],
    ["/", {}, { route: "static", path: "/", status: 200 }],
  ])("so is %s with %j", async (path, sending, expected) => {
    const reply = await http(`${server.url}${path}`, sending);
    const line = await accessOf(String(reply.headers["x-request-id"]));
    expect(line).toMatchObject(expected);
  });

  test("and what was no request at all, and a client that hung up", async () => {
    const socket = await dial(server.url);
    socket.write("this is not HTTP\r\n\r\n");
    const { error } = JSON.parse((await readAll(socket)).split("\r\n\r\n")[1] ?? "");
    expect(await accessOf(error.requestId)).toMatchObject({
      route: "none",
      status: 400,
      code: "BAD_REQUEST",
    });

    const gone = await dial(server.url);
    gone.write(
      "POST /api/classify HTTP/1.1\r\nhost: x\r\nx-request-id: hung-up\r\ncontent-type: image/png\r\ncontent-length: 99\r\n\r\n",
    );
    await eventually(async () => /^http_requests_total/m.test((await http(`${server.url}/metrics`)).text));
    gone.destroy();
    expect(await accessOf("hung-up")).toMatchObject({ route: "/api/classify", status: 499 });
  });

  test("refusals are counted by their route, like answers", async () => {
    for (const line of [
      /^http_requests_total\{route="none",status="404"\} [1-9]/m,
      /^http_requests_total\{route="none",status="400"\} [1-9]/m,
      /^http_requests_total\{route="\/api\/models\/:model",status="404"\} [1-9]/m,
      /^http_requests_total\{route="\/api\/classify",status="499"\} 1$/m,
      /^http_requests_total\{route="static",status="200"\} [1-9]/m,
    ]) {
      // A scrape may be a second old.
      await eventually(async () => expect((await http(`${server.url}/metrics`)).text).toMatch(line));
    }
  });
});
