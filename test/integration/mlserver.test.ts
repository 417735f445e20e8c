import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { resolve } from "node:path";
import { ServiceBroker } from "moleculer";
import type { Lease } from "../../lib/engines/leases.ts";
import { leaseNetwork } from "../../lib/engines/node.ts";
import { openInference } from "../../lib/engines/remote/open-inference.ts";
import { remoteOf } from "../../lib/engines/remote/part.ts";
import type { Tensors } from "../../lib/engines/tensors.ts";
import { eventually } from "../../testkit/eventually.ts";
import { freePort } from "../../testkit/port.ts";
import { RemoteStandIn } from "../../testkit/remote.ts";

/** MLServer (https://github.com/SeldonIO/MLServer): a server of the Open Inference Protocol that is not ours. */
const python = spawnSync("scripts/venv.sh", ["--made", "mlserver"], { encoding: "utf8" });

(python.status === 0 ? describe : describe.skip)("MLServer", () => {
  let child: ChildProcess;
  let url: string;
  let log = "";
  const broker = new ServiceBroker({ logger: false, skipProcessEventRegistration: true });
  const leases: Lease[] = [];

  const start = async (ports: readonly number[]) => {
    const [http, grpc, metrics] = ports;
    url = `http://127.0.0.1:${http}`;
    child = spawn(resolve(python.stdout.trim(), "bin/mlserver"), ["start", "test/fixtures/mlserver"], {
      env: {
        PATH: process.env["PATH"],
        HOME: process.env["HOME"],
        MLSERVER_HTTP_PORT: String(http),
        MLSERVER_GRPC_PORT: String(grpc),
        MLSERVER_METRICS_PORT: String(metrics),
        PYTHONDONTWRITEBYTECODE: "1",
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [child.stdout, child.stderr]) stream?.on("data", (text) => (log += String(text)));
    await eventually(async () => {
      expect({ exit: child.exitCode, log: child.exitCode === null ? "" : log }).toEqual({
        exit: null,
        log: "",
      });
      const response = await fetch(`${url}/v2/models/double/ready`).catch(() => undefined);
      expect(response?.status).toBe(200);
    }, 90_000);
  };
  const stop = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    child.kill("SIGKILL");
    await gone;
  };
  let ports: number[];

  beforeAll(async () => {
    ports = [await freePort(), await freePort(), await freePort()];
    await start(ports);
  }, 120_000);
  afterAll(async () => {
    await Promise.all(leases.map((lease) => lease.release()));
    await broker.stop();
    await stop();
  });

  const lease = async (remote: object) => {
    const made = await leaseNetwork(broker, {
      id: { name: "double", version: 1, fingerprint: JSON.stringify(remote) },
      spec: {
        runtime: "remote",
        dir: "",
        files: [],
        inputs: [
          { name: "x", dtype: "float32", shape: [2] },
          { name: "words", dtype: "string", shape: [1] },
          { name: "count", dtype: "int64", shape: [1] },
        ],
        outputs: [
          { name: "y", dtype: "float32", shape: [2] },
          { name: "loud", dtype: "string", shape: [1] },
          { name: "more", dtype: "int64", shape: [1] },
        ],
        maxBatch: 4,
        remote: remoteOf({ protocol: "open-inference", model: "double", url, ...remote }),
      },
      threads: 1,
      instances: 1,
      batching: { maxBatchSize: 4, maxQueueSize: 64 },
    });
    leases.push(made);
    return made;
  };

  const item = (a: number, word: string, count = 1n): Tensors => ({
    x: { dtype: "float32", shape: [1, 2], data: Float32Array.of(a, -a) },
    words: { dtype: "string", shape: [1, 1], data: [word] },
    count: { dtype: "int64", shape: [1, 1], data: BigInt64Array.of(count) },
  });

  describe.each([
    ["whichever version", {}],
    ["a version", { version: "1" }],
  ])("asked for %s", (_, remote) => {
    test("says what it takes and gives, and answers", async () => {
      const own = await lease(remote);
      await eventually(() => expect(own.network.state).toBe("up"), 20_000);
      const settled = await Promise.all(
        ["ä", "b", "日"].map((word, i) => own.submit([item(i + 0.25, word, BigInt(i))])),
      );
      expect(settled.flat()).toMatchObject(
        ["Ä", "B", "日"].map((loud, i) => ({
          ok: true,
          value: {
            y: { data: Float32Array.of(2 * i + 0.5, -2 * i - 0.5) },
            loud: { data: [loud] },
            more: { data: BigInt64Array.of(BigInt(i + 1)) },
          },
        })),
      );
    }, 40_000);

    test("fails for the item that it fails on, and for no other", async () => {
      const own = await lease(remote);
      await eventually(() => expect(own.network.state).toBe("up"), 20_000);
      const settled = await own.submit([item(1, "a"), item(13, "b"), item(2, "c")]);
      expect(settled).toMatchObject([
        { ok: true },
        { ok: false, error: { type: "PREDICTION_FAILED", message: expect.stringContaining("status 500") } },
        { ok: true },
      ]);
    }, 40_000);
  });

  test("is away while it restarts, and asked again after that", async () => {
    const own = await lease({});
    await eventually(() => expect(own.network.state).toBe("up"), 20_000);
    await stop();
    await eventually(() => expect(own.network.available).toBe(false), 20_000);
    await start(ports);
    await eventually(() => expect(own.network.state).toBe("up"), 20_000);
    expect(await own.submit([item(1, "a")])).toMatchObject([{ ok: true }]);
  }, 120_000);
});

(python.status === 0 ? test : test.skip)(
  "MLServer brings Triton's client: it writes binary tensors as we do",
  async () => {
    const server = new RemoteStandIn();
    const url = await server.start();
    const LENGTH = "inference-header-content-length";
    const { infer } = openInference({
      ...remoteOf({ protocol: "open-inference", model: "double", binary: true }),
      origin: url,
      prefix: "",
    });
    const outputs = [{ name: "y", dtype: "float32", shape: [2] }] as const;
    const x = { dtype: "float32", shape: [1, 2], data: Float32Array.of(1, -2) } as const;
    const ours = infer(
      {
        x,
        words: { dtype: "string", shape: [1, 1], data: ["ä"] },
        count: { dtype: "int64", shape: [1, 1], data: BigInt64Array.of(2n ** 53n + 1n) },
      },
      outputs,
    );
    const { path, body, headers } = infer({ x }, outputs);
    const answer = await fetch(`${url}${path}`, {
      method: "POST",
      headers: { ...headers },
      body: new Uint8Array(body as Buffer),
    });
    const bytes = Buffer.from(await answer.arrayBuffer()).toString("base64");
    const { stdout, stderr } = spawnSync(
      resolve(python.stdout.trim(), "bin/python"),
      ["test/fixtures/mlserver/client.py", bytes, answer.headers.get(LENGTH) ?? ""],
      { encoding: "utf8" },
    );
    await server.stop();
    const length = Number(ours.headers?.[LENGTH]);
    const sent = ours.body as Buffer;
    expect(stderr).toBe("");
    expect(JSON.parse(stdout)).toEqual({
      json: JSON.parse(sent.toString("utf8", 0, length)),
      bytes: sent.subarray(length).toString("base64"),
      y: [[2, -4]],
    });
  },
  60_000,
);
