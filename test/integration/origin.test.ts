import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { type OriginOptions, OriginRepository } from "../../lib/models/origin.ts";
import { FolderRepository } from "../../lib/models/repository.ts";
import { eventually } from "../../testkit/eventually.ts";
import { http } from "../../testkit/http.ts";
import { TestOrigin } from "../../testkit/origin.ts";
import { startServer } from "../../testkit/server.ts";
import { putTimes, timesFiles } from "../../testkit/versions.ts";

let models: string;
let origin: TestOrigin;
const signal = new AbortController().signal;

beforeEach(async () => {
  models = mkdtempSync(join(tmpdir(), "origin-"));
  origin = await TestOrigin.start();
});

afterEach(async () => {
  await origin.stop();
  rmSync(models, { recursive: true, force: true });
});

function repository(options: Partial<OriginOptions> = {}): OriginRepository {
  return new OriginRepository(new FolderRepository(join(models, "times")), models, "times", {
    origins: [origin.url],
    headers: {},
    maxBytes: 1 << 20,
    allowPrivateRedirects: false,
    readTimeoutMs: 300,
    retryDelayMs: 1,
    ...options,
  });
}

/** Fetches a version as a service would. */
async function fetched(version: number, options: Partial<OriginOptions> = {}): Promise<string> {
  const { found, problems } = await repository(options).list(signal);
  const it = found.find((each) => each.version === version);
  if (!it) throw new Error(problems.map(({ reason }) => reason).join("; ") || "not listed");
  return it.fetch(signal);
}

/** What the folder has now. */
const here = async () =>
  (await new FolderRepository(join(models, "times")).list()).found.map(({ version }) => version);

const isGraph = ({ url }: IncomingMessage) => url?.endsWith("/model.onnx") ?? false;

describe("an origin", () => {
  test("offers what the folder does not have; it is fetched when it is wanted, and then is there as a whole", async () => {
    putTimes(models, 1);
    origin.put("times", 1, timesFiles(1));
    origin.put("times", 2, timesFiles(2));
    const { found, problems } = await repository().list(signal);
    expect([found.map(({ version }) => version), problems]).toEqual([[1, 2], []]);
    expect(await here()).toEqual([1]);
    expect(await found[1]?.fetch(signal)).toBe(join(models, "times/2"));
    expect(await here()).toEqual([1, 2]);
    expect(origin.asked.filter((path) => path.includes("/1/"))).toEqual([]);
    expect(readdirSync(join(models, ".incoming/times"))).toEqual([]);
  });

  test("is asked once by services that want the same version", async () => {
    origin.put("times", 2, timesFiles(2));
    await Promise.all([fetched(2), fetched(2), fetched(2)]);
    expect(origin.asked.filter((path) => path.endsWith("onnx"))).toHaveLength(1);
  });

  test("gets the headers that are configured", async () => {
    origin.put("times", 2, timesFiles(2));
    await fetched(2, { headers: { authorization: "Bearer x, y=z" } });
    expect(origin.headers["authorization"]).toBe("Bearer x, y=z");
  });

  test("whose connections drop brings what it brings: the rest is asked for", async () => {
    origin.put("times", 2, timesFiles(2, { graph: padded }));
    const ranges: (string | undefined)[] = [];
    origin.mischief = (req, res, bytes) => {
      if (!isGraph(req) || !bytes || ranges.length > 2) return false;
      ranges.push(req.headers.range);
      const from = Number(/\d+/.exec(req.headers.range ?? "0")?.[0]);
      const rest = bytes.subarray(from);
      res.writeHead(from > 0 ? 206 : 200, {
        "content-length": rest.length,
        ...(from > 0 ? { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` } : {}),
      });
      res.write(rest.subarray(0, 5000), () => setTimeout(() => res.destroy(), 20));
      return true;
    };
    await fetched(2);
    expect(ranges).toEqual([undefined, "bytes=5000-", "bytes=10000-"]);
    expect(await here()).toEqual([2]);
  });

  test("is gone on with by another process where the first was stopped", async () => {
    origin.put("times", 2, timesFiles(2, { graph: padded }));
    let whole = false;
    const ranges: (string | undefined)[] = [];
    origin.mischief = (req, res, bytes) => {
      if (!isGraph(req) || !bytes) return false;
      ranges.push(req.headers.range);
      if (whole) return false;
      res.writeHead(200, { "content-length": bytes.length });
      res.write(bytes.subarray(0, 7000));
      return true;
    };
    const stopped = new AbortController();
    const { found } = await repository({ readTimeoutMs: 10_000 }).list(signal);
    const first = found[0]?.fetch(stopped.signal);
    const parts = () =>
      readdirSync(join(models, ".incoming/times/2")).filter((name) => name.endsWith(".part"));
    await eventually(() => existsSync(join(models, ".incoming/times/2")) && parts().length === 1);
    await delay(50);
    stopped.abort(new Error("stopped"));
    await expect(first).rejects.toThrow("stopped");
    whole = true;
    await fetched(2);
    expect(ranges).toEqual([undefined, "bytes=7000-"]);
    expect(await here()).toEqual([2]);
  });

  const answers =
    (status: number, headers: Record<string, string> = {}) =>
    (req: IncomingMessage, res: import("node:http").ServerResponse) => {
      if (!isGraph(req)) return false;
      res.writeHead(status, headers).end();
      return true;
    };

  test.each<[string, TestOrigin["mischief"], string]>([
    ["404", answers(404), "answered 404"],
    ["500", answers(500), "answered 500"],
    ["a redirect to another scheme", answers(302, { location: "file:///etc/passwd" }), "another scheme"],
    ["a redirect to a private address", answers(302, { location: "http://10.0.0.1/x" }), "private address"],
    ["redirects without end", answers(302, { location: "model.onnx" }), "redirects too often"],
    [
      "other bytes of the same length",
      (req, res, bytes) => {
        if (!isGraph(req) || !bytes) return false;
        res.end(Buffer.alloc(bytes.length, 1));
        return true;
      },
      "another file than expected",
    ],
    [
      "fewer bytes than it should",
      (req, res) => {
        if (isGraph(req)) res.end("short");
        return isGraph(req);
      },
      "instead of",
    ],
    [
      "a range that was not asked for",
      (req, res, bytes) => {
        if (!isGraph(req) || !bytes) return false;
        res
          .writeHead(206, { "content-range": `bytes 5-${bytes.length - 1}/${bytes.length}` })
          .end(bytes.subarray(5));
        return true;
      },
      "another range",
    ],
    ["nothing, ever", (req) => isGraph(req), "sent nothing for too long"],
    [
      "a byte now and then",
      (req, res, bytes) => {
        if (!isGraph(req) || !bytes) return false;
        res.writeHead(200, { "content-length": bytes.length });
        const trickle = setInterval(() => res.write("x"), 50);
        res.on("close", () => clearInterval(trickle));
        return true;
      },
      "sent nothing for too long",
    ],
  ])(
    "that answers with %s costs nothing: no version appears, and it is said why",
    async (_, mischief, reason) => {
      putTimes(models, 1);
      origin.put("times", 2, timesFiles(2));
      origin.mischief = mischief;
      await expect(fetched(2)).rejects.toThrow(reason);
      expect(await here()).toEqual([1]);
      // And when it is well again, it is fetched.
      origin.mischief = () => false;
      await fetched(2);
      expect(await here()).toEqual([1, 2]);
    },
  );

  test.each<[string, (stop: () => void) => void, string]>([
    ["is down", (stop) => stop(), "ECONNREFUSED"],
    ["has no index", () => origin.set("times/index.json", Buffer.from("<html>")), "JSON"],
    [
      "has a foolish index",
      () => origin.set("times/index.json", Buffer.from('{"versions":["../1"]}')),
      "versions",
    ],
    [
      "has an endless index",
      () => {
        origin.mischief = (_, res) => {
          const flood = setInterval(() => res.write(Buffer.alloc(65_536, 32)), 1);
          res.on("close", () => clearInterval(flood));
          return true;
        };
      },
      "too large",
    ],
    [
      "trickles its index",
      () => {
        origin.mischief = (_, res) => {
          const trickle = setInterval(() => res.write(Buffer.alloc(600, 32)), 100);
          res.on("close", () => clearInterval(trickle));
          return true;
        };
      },
      "timeout",
    ],
  ])("that %s leaves what is in the folder", async (_, spoil, reason) => {
    putTimes(models, 1);
    origin.put("times", 2, timesFiles(2));
    spoil(() => void origin.stop());
    const { found, problems } = await repository({ smallTimeoutMs: 1500 }).list(signal);
    expect(found.map(({ version }) => version)).toEqual([1]);
    expect(problems).toEqual([{ reason: expect.stringContaining(reason) }]);
  });

  test.each<[string, Parameters<typeof timesFiles>[1], string]>([
    [
      "a path out of its folder",
      { manifest: (made) => ({ ...made, files: [{ ...made.files[0], path: "../../evil" }] }) },
      "path of a file",
    ],
    [
      "a path with a space and letters of elsewhere",
      { manifest: (made) => ({ ...made, files: [{ ...made.files[0], path: "módel 1.onnx" }] }) },
      "path of a file",
    ],
    ["another name", { manifest: (made) => ({ ...made, name: "other" }) }, "Expected times for name"],
    ["another version", { manifest: (made) => ({ ...made, version: 3 }) }, "Expected 2 for version"],
    [
      "two gigabytes",
      { manifest: (made) => ({ ...made, files: [{ ...made.files[0], bytes: 2 ** 31 }] }) },
      "2147483648 bytes, at most 1048576 are fetched",
    ],
  ])("whose manifest says %s is not followed", async (_, options, reason) => {
    origin.put("times", 2, timesFiles(2, options));
    await expect(fetched(2)).rejects.toThrow(reason);
    expect(await here()).toEqual([]);
    expect(origin.asked.filter((path) => path.endsWith("onnx"))).toEqual([]);
  });

  test("is not followed where two disagree; where they agree either will do", async () => {
    const other = await TestOrigin.start();
    try {
      const origins = [origin.url, other.url];
      origin.put("times", 2, timesFiles(2));
      other.put("times", 2, timesFiles(2, { factor: 7 }));
      await expect(fetched(2, { origins })).rejects.toThrow("The origins disagree about version 2");
      expect(await here()).toEqual([]);
      other.put("times", 2, timesFiles(2));
      origin.mischief = answers(500);
      await fetched(2, { origins });
      expect(await here()).toEqual([2]);
    } finally {
      await other.stop();
    }
  });

  test("is followed to a private address only if that is allowed", async () => {
    const other = await TestOrigin.start();
    try {
      origin.put("times", 2, timesFiles(2));
      other.put("times", 2, timesFiles(2));
      origin.mischief = answers(302, { location: `${other.url}/times/2/model.onnx` });
      await expect(fetched(2)).rejects.toThrow("private address");
      await fetched(2, { allowPrivateRedirects: true });
      expect(await here()).toEqual([2]);
    } finally {
      await other.stop();
    }
  });

  test("is left alone while another process fetches; the lock of one that has ended is not heeded", async () => {
    origin.put("times", 2, timesFiles(2));
    mkdirSync(join(models, ".incoming/times"), { recursive: true });
    const lock = join(models, ".incoming/times/2.lock");
    writeFileSync(lock, "");
    await expect(fetched(2)).rejects.toThrow("Another process");
    utimesSync(lock, 0, 0);
    await fetched(2);
    expect(await here()).toEqual([2]);
  });
});

describe("a disk", () => {
  /** What a process has whose models are on a disk of 300 KiB with version 1 on it. `prepare` is shell, in its folder. */
  async function onDisk(prepare: string): Promise<{ problems: string[]; error?: string; there: number[] }> {
    putTimes(models, 1);
    const disk = mkdtempSync(join(tmpdir(), "disk-"));
    const script = `set -e; mount -t tmpfs -o size=300k tmpfs ${disk}; cp -r ${models}/times ${disk}; cd ${disk}; ${prepare}; cd "$OLDPWD"; exec "$@"`;
    const reader = [process.execPath, "test/fixtures/origin-reader.ts", disk, origin.url];
    try {
      // A mount namespace of its own: the disk is gone with the process.
      const { stdout } = await promisify(execFile)("unshare", [
        ...["--mount", "--map-root-user", "sh", "-c", script, "sh"],
        ...reader,
      ]);
      return JSON.parse(stdout);
    } finally {
      rmSync(disk, { recursive: true, force: true });
    }
  }

  test("that is full takes no version, and keeps those it has", async () => {
    origin.put(
      "times",
      2,
      timesFiles(2, { graph: (file) => padded(padded(padded(padded(padded(padded(file)))))) }),
    );
    const { error, there } = await onDisk("true");
    expect([error, there]).toEqual([expect.stringContaining("ENOSPC"), [1]]);
  }, 30_000);

  test("that may only be read is read", async () => {
    origin.put("times", 2, timesFiles(2));
    const { problems, there } = await onDisk("mount -o remount,ro .");
    expect([problems, there]).toEqual([[expect.stringContaining("EROFS")], [1]]);
  }, 30_000);
});

/** More bytes than come in one piece; what follows a graph is a field that nobody knows. */
function padded(file: Uint8Array): Uint8Array {
  const padding = 60_000;
  const length = [(padding & 0x7f) | 0x80, ((padding >> 7) & 0x7f) | 0x80, padding >> 14];
  return Buffer.concat([file, Buffer.from([0xfa, 0x3e, ...length]), Buffer.alloc(padding)]);
}

test("a server starts with nothing but an origin, takes new versions from it, and outlives it", async () => {
  origin.put("times", 1, timesFiles(1));
  const server = await startServer({
    SERVICES: "gateway,dispatcher,times",
    SERVICES_DIRS: "services,test/fixtures/services",
    MODELS_DIR: models,
    MODELS_ORIGIN: origin.url,
    MODELS_POLL_MS: "300",
    LOG_FORMAT: "json",
  });
  try {
    const versions = async () => (await http(`${server.url}/api/models/times`)).json();
    expect(await versions()).toMatchObject({ state: "ready", model: { version: 1 } });
    origin.put("times", 2, timesFiles(2));
    await eventually(async () => expect(await versions()).toMatchObject({ model: { version: 2 } }), 30_000);
    await origin.stop();
    await eventually(async () => {
      const { versions: all, state } = await versions();
      expect(state).toBe("ready");
      expect(all[0]).toMatchObject({ state: "failed", error: expect.stringContaining("ECONNREFUSED") });
    }, 30_000);
    const reply = await http(`${server.url}/api/models/times/predict`, {
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ inputs: { x: [1, 2, 3] } }),
    });
    expect(reply.json().results.times.outputs.y).toEqual([3, 6, 9]);
    expect(server.log()).toMatch(/"The versions of the model cannot be listed"/);
  } finally {
    await server.stop();
  }
}, 120_000);
