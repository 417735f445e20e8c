import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { jest } from "@jest/globals";
import { Clips, ffmpeg } from "../../testkit/clips.ts";
import { eventually } from "../../testkit/eventually.ts";
import { form, http } from "../../testkit/http.ts";
import { colourModel } from "../../testkit/onnx.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";

jest.setTimeout(60_000);

const folder = mkdtempSync(join(tmpdir(), "video-"));
const services = join(folder, "services");
let server: TestServer;
let clips: Clips;
/** Three seconds of cats, two of dogs, one of cats. */
let clip: Buffer;

const start = (env: Record<string, string> = {}) =>
  startServer({ SERVICES: "gateway,dispatcher,colours-cat,colours-dog,video", ...env }, [
    services,
    "examples",
  ]);

beforeAll(async () => {
  clips = new Clips(await ffmpeg(), folder);
  clip = await clips.colours("clip.mp4", { red: 3, lime: 2, "0xfe0000": 1 });
  const graph = join(folder, "colours.onnx");
  writeFileSync(graph, colourModel());
  const args = ["--labels", "cat,dog,bird", "--group", "cat", "--group", "dog"];
  const added = spawnSync(
    process.execPath,
    ["bin/models-add.ts", graph, ...args, "--models", join(folder, "models"), "--services", services],
    { cwd: resolve(import.meta.dirname, "../.."), encoding: "utf8" },
  );
  expect(added).toMatchObject({ status: 0 });
  server = await start();
}, 180_000);
afterAll(async () => {
  await server?.stop();
  rmSync(folder, { recursive: true });
});

const ask = (
  url: string,
  body: Uint8Array | string,
  headers: Record<string, string> = {},
  signal?: AbortSignal,
) =>
  http(`${url}/api/models/video/predict`, {
    headers: { "content-type": "video/mp4", ...headers },
    body,
    ...(signal ? { signal } : {}),
  });

interface Moment {
  readonly atSeconds: number;
  readonly answers: Readonly<Record<string, { readonly answer: boolean; readonly cached?: boolean }>>;
}

test("a clip is answered over time, and summed up", async () => {
  const reply = await ask(server.url, clip);
  expect(reply.status).toBe(200);
  const { video, results } = reply.json();
  expect(video).toMatchObject({ format: "mov", bytes: clip.length });
  const moments = results.video.moments as Moment[];
  expect(moments.map(({ atSeconds, answers }) => [atSeconds, answers["colours-cat"]?.answer])).toEqual([
    [0, true],
    [1, true],
    [2, true],
    [3, false],
    [4, false],
    [5, true],
  ]);
  expect(results.video.summary).toMatchObject({
    "colours-cat": {
      answer: true,
      moments: 6,
      yes: 4,
      spans: [
        { fromSeconds: 0, toSeconds: 2 },
        { fromSeconds: 5, toSeconds: 5 },
      ],
    },
    "colours-dog": { answer: false, yes: 2, spans: [{ fromSeconds: 3, toSeconds: 4 }] },
  });
});

test("frames take the way of photos: the same clip again is computed no more, unless nothing may be kept", async () => {
  const cached = async (headers = {}) => {
    const { results } = (await ask(server.url, clip, headers)).json();
    const moments = results.video.moments as Moment[];
    return moments.map(({ answers }) => answers["colours-cat"]?.cached === true);
  };
  await cached();
  expect(await cached()).toEqual(new Array(6).fill(true));
  expect(await cached({ "cache-control": "no-store" })).toEqual(new Array(6).fill(false));
});

test("a form takes clips, and without a model's name they are everybody's who takes clips", async () => {
  const { body, headers } = form([{ name: "video", file: "a.mp4", type: "video/mp4", bytes: clip }]);
  const inForm = await http(`${server.url}/api/models/video/predict`, { headers, body });
  expect(inForm.json().results.video.moments).toHaveLength(6);
  const unnamed = await http(`${server.url}/api/classify`, {
    headers: { "content-type": "video/mp4" },
    body: clip,
  });
  expect(Object.keys(unnamed.json().results)).toEqual(["video"]);
});

test("the list of models says what is looked at", async () => {
  const { models } = (await http(`${server.url}/api/models`)).json();
  expect(models.find(({ name }: { name: string }) => name === "video")).toMatchObject({
    state: "ready",
    task: "timeline",
    input: { type: "video", everySeconds: 1, maxSeconds: 60 },
  });
});

test.each<[string, () => Uint8Array | string, number, string]>([
  ["half a clip", () => clip.subarray(0, clip.length / 2), 422, "INVALID_VIDEO"],
  ["a playlist", () => "#EXTM3U\nfile:///etc/passwd\n", 415, "UNSUPPORTED_MEDIA_TYPE"],
  ["a list to join", () => "ffconcat version 1.0\nfile '/etc/passwd'\n", 415, "UNSUPPORTED_MEDIA_TYPE"],
  ["a photo", () => readFileSync("test/fixtures/golden/image.png"), 415, "UNSUPPORTED_MEDIA_TYPE"],
  ["nothing but a beginning", () => "\0\0\0\x08ftyp", 422, "INVALID_VIDEO"],
  ["16 MB", () => Buffer.alloc(16_000_000), 413, "PAYLOAD_TOO_LARGE"],
])("%s is refused with its status, and the server goes on", async (_, bytes, status, code) => {
  const reply = await ask(server.url, bytes());
  expect({ status: reply.status, code: reply.json().error?.code }).toEqual({ status, code });
  expect((await ask(server.url, clip)).status).toBe(200);
});

test("without FFmpeg the answer says what to install", async () => {
  const bare = await start({ FFMPEG: join(folder, "none") });
  try {
    const reply = await ask(bare.url, clip);
    expect(reply.status).toBe(501);
    expect(reply.json().error).toMatchObject({
      code: "DECODER_MISSING",
      retryable: false,
      message: expect.stringContaining("apt-get install ffmpeg"),
    });
    expect(bare.log()).toContain("Clips cannot be decoded");
  } finally {
    await bare.stop();
  }
});

describe("a decoder that hangs", () => {
  const stuck = join(folder, "stuck.sh");
  const pids = join(folder, "pids");
  let stuckServer: TestServer;

  beforeEach(async () => {
    rmSync(pids, { force: true });
    writeFileSync(stuck, `#!/bin/sh\necho $$ >> ${pids}\nexec sleep 1000\n`, { mode: 0o755 });
    stuckServer = await start({ FFMPEG: stuck });
  });
  afterEach(() => stuckServer?.stop());

  const started = () => (existsSync(pids) ? readFileSync(pids, "utf8").trim().split("\n").map(Number) : []);
  const running = () => started().filter((pid) => existsSync(`/proc/${pid}`));

  test("is killed when the deadline passes", async () => {
    const reply = await ask(stuckServer.url, clip, { "x-request-timeout-ms": "1500" });
    expect(reply.status).toBe(504);
    expect(started()).toHaveLength(1);
    await eventually(() => running().length === 0);
  });

  test("is killed when its client hangs up", async () => {
    const giveUp = new AbortController();
    const reply = ask(stuckServer.url, clip, { "x-request-timeout-ms": "60000" }, giveUp.signal).catch(
      () => {},
    );
    await eventually(() => running().length === 1);
    giveUp.abort();
    await reply;
    await eventually(() => running().length === 0);
  });

  test.each(["SIGTERM", "SIGKILL"] as const)(
    "does not outlive a server that ends by %s",
    async (signal) => {
      void ask(stuckServer.url, clip, { "x-request-timeout-ms": "3000" }).catch(() => {});
      await eventually(() => running().length === 1);
      const gone = new Promise((resolve) => stuckServer.process.once("exit", resolve));
      stuckServer.process.kill(signal);
      await gone;
      await eventually(() => running().length === 0);
    },
    60_000,
  );
});
