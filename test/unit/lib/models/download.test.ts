import { createHash, randomBytes } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isPrivate } from "../../../../lib/models/addresses.ts";
import {
  DownloadError,
  type DownloadOptions,
  download,
  pathWithin,
} from "../../../../lib/models/download.ts";

const CONTENT = randomBytes(300_000);
const SHA256 = createHash("sha256").update(CONTENT).digest("hex");

type Handler = (request: IncomingMessage, response: ServerResponse, count: number) => void;

let folder: string;
const servers: Server[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "download-"));
});
afterEach(async () => {
  rmSync(folder, { recursive: true });
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await new Promise((done) => server.close(done));
  }
});

/** An origin; `count` is how many requests it had before. */
async function origin(handler: Handler): Promise<{ url: string; seen: IncomingMessage[] }> {
  const seen: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    seen.push(request);
    response.on("error", () => {});
    handler(request, response, seen.length - 1);
  });
  servers.push(server);
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/model.onnx`, seen };
}

/** A decent file server. */
const serve: Handler = (request, response) => {
  const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
  if (from >= CONTENT.length) return void response.writeHead(416).end();
  const rest = CONTENT.subarray(from);
  const range = { "content-range": `bytes ${from}-${CONTENT.length - 1}/${CONTENT.length}` };
  response.writeHead(from > 0 ? 206 : 200, {
    "content-length": rest.length,
    etag: '"1"',
    ...(from > 0 ? range : {}),
  });
  response.end(rest);
};

/** Sends so many bytes of what was asked for, then cuts the connection. */
const cutAfter = (bytes: number): Handler => {
  return (request, response) => {
    const end = response.end.bind(response);
    response.end = ((rest?: Buffer) => {
      if (!rest) return end();
      response.write(rest.subarray(0, bytes), () => response.destroy());
      return response;
    }) as typeof response.end;
    serve(request, response, 0);
  };
};

const get = (url: string, options: Partial<DownloadOptions> = {}) =>
  download({
    url,
    to: join(folder, "model.onnx"),
    maxBytes: 1_000_000,
    sha256: SHA256,
    bytes: CONTENT.length,
    retryDelayMs: 1,
    ...options,
  });
const got = () => readFileSync(join(folder, "model.onnx"));
const failure = async (promise: Promise<unknown>): Promise<DownloadError> => {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof DownloadError) return error;
  throw new Error(`Expected a DownloadError but received ${String(error)}`);
};
/** Half files too. */
const files = () => readdirSync(folder);

test("a file arrives whole, and tells how far it is", async () => {
  const { url } = await origin(serve);
  const progress: [number, number | undefined][] = [];
  expect(await get(url, { onProgress: (done, total) => progress.push([done, total]) })).toEqual({
    bytes: CONTENT.length,
    sha256: SHA256,
  });
  expect(got()).toEqual(CONTENT);
  expect(files()).toEqual(["model.onnx"]);
  expect(progress.at(-1)).toEqual([CONTENT.length, CONTENT.length]);
});

test("without known size or digest what comes is what it is", async () => {
  const { url } = await origin((_, response) => response.end(CONTENT));
  expect(await download({ url, to: join(folder, "a/b/c"), maxBytes: 1e6 })).toEqual({
    bytes: CONTENT.length,
    sha256: SHA256,
  });
});

test("dropped connections are gone on with, however many, as long as each brings something", async () => {
  const { url, seen } = await origin(cutAfter(40_000));
  await get(url, { tries: 2 });
  expect(got()).toEqual(CONTENT);
  expect(seen.length).toBeGreaterThanOrEqual(8);
  expect(seen.slice(1).every(({ headers }) => headers.range?.startsWith("bytes="))).toBe(true);
});

test("a half file of an earlier process is gone on with", async () => {
  let stopped = true;
  const { url, seen } = await origin((request, response, count) => {
    if (stopped) cutAfter(100_000)(request, response, count);
    else serve(request, response, count);
  });
  const giveUp = new AbortController();
  const onProgress = () => giveUp.abort();
  await expect(get(url, { signal: giveUp.signal, onProgress })).rejects.toThrow();
  const [half] = files();
  expect(half).toMatch(/\.part$/);
  const have = readFileSync(join(folder, half ?? "")).length;
  expect(have).toBeGreaterThan(0);
  stopped = false;
  await get(url);
  expect(seen.at(-1)?.headers.range).toBe(`bytes=${have}-`);
  expect(got()).toEqual(CONTENT);
});

test("a half file of something else is thrown away", async () => {
  const { url } = await origin(serve);
  writeFileSync(join(folder, `model.onnx.${SHA256.slice(0, 16)}.part`), randomBytes(1000));
  await get(url);
  expect(got()).toEqual(CONTENT);
  expect(files()).toEqual(["model.onnx"]);
});

test("a half file longer than the file is thrown away", async () => {
  const { url } = await origin(serve);
  writeFileSync(join(folder, `model.onnx.${SHA256.slice(0, 16)}.part`), randomBytes(CONTENT.length + 5));
  await get(url);
  expect(got()).toEqual(CONTENT);
});

test("an origin that knows no ranges sends all again", async () => {
  const { url } = await origin((request, response, count) => {
    delete request.headers.range;
    (count === 0 ? cutAfter(100_000) : serve)(request, response, count);
  });
  await get(url);
  expect(got()).toEqual(CONTENT);
});

test("an origin that answers with another range than asked for is not believed", async () => {
  const { url, seen } = await origin((request, response, count) => {
    if (count !== 1) return (count === 0 ? cutAfter(100_000) : serve)(request, response, count);
    const range = { "content-range": `bytes 5-${CONTENT.length - 1}/${CONTENT.length}` };
    response.writeHead(206, range).end(CONTENT.subarray(5));
  });
  await get(url);
  expect(got()).toEqual(CONTENT);
  expect(seen[2]?.headers.range).toBeUndefined();
});

test("a file that changed between two halves is fetched anew", async () => {
  const other = randomBytes(CONTENT.length);
  const { url, seen } = await origin((request, response, count) => {
    if (count === 0) return cutAfter(100_000)(request, response, count);
    // As RFC 9110 has it: another entity tag, so all of it.
    expect(request.headers["if-range"]).toBe('"1"');
    response.writeHead(200, { "content-length": other.length, etag: '"2"' }).end(other);
  });
  const sha256 = createHash("sha256").update(other).digest("hex");
  await get(url, { sha256 });
  expect(got()).toEqual(other);
  expect(seen).toHaveLength(2);
});

test.each([429, 500, 503])(
  "an origin that answers %d is asked again, so often and no more",
  async (status) => {
    const { url, seen } = await origin((_, response) => response.writeHead(status).end());
    const error = await failure(get(url, { tries: 3 }));
    expect(error).toMatchObject({ status, retryable: true, message: expect.stringContaining(`${status}`) });
    expect(seen).toHaveLength(3);
    expect(existsSync(join(folder, "model.onnx"))).toBe(false);
  },
);

test.each([401, 403, 404, 410])("an origin that answers %d is not asked again", async (status) => {
  const { url, seen } = await origin((_, response) => response.writeHead(status).end());
  expect(await failure(get(url))).toMatchObject({ status, retryable: false });
  expect(seen).toHaveLength(1);
  expect(files()).toEqual([]);
});

test("an origin that recovers is forgiven", async () => {
  const { url } = await origin((request, response, count) => {
    if (count < 2) response.writeHead(500).end();
    else serve(request, response, count);
  });
  await get(url);
  expect(got()).toEqual(CONTENT);
});

test("another file than expected never gets the name", async () => {
  const { url } = await origin((_, response) => response.end(randomBytes(CONTENT.length)));
  const error = await failure(get(url));
  expect(error.message).toContain("another file than expected");
  expect(files()).toEqual([]);
});

test.each([
  ["says that it is larger", { "content-length": CONTENT.length + 1 }],
  ["says that it is smaller", { "content-length": 10 }],
])("a file whose origin %s than known is not fetched", async (_, headers) => {
  const { url } = await origin((_, response) => {
    response.writeHead(200, headers).write("x");
  });
  expect((await failure(get(url))).message).toMatch(/bytes instead of/);
});

test("a file over the bound is stopped, whether its size is said or not", async () => {
  const { url } = await origin((request, response) => {
    if (request.url === "/said") response.writeHead(200, { "content-length": 5000 });
    response.write(Buffer.alloc(4000));
    response.write(Buffer.alloc(1000));
  });
  for (const path of ["/said", "/unsaid"]) {
    const to = join(folder, "large");
    const error = await failure(download({ url: new URL(path, url), to, maxBytes: 4096 }));
    expect(error.message).toContain("too large");
  }
  expect(files()).toEqual([]);
});

test.each<[string, Handler]>([
  ["never answers", () => {}],
  [
    "answers and sends nothing",
    (_, response) => response.writeHead(200, { "content-length": CONTENT.length }).flushHeaders(),
  ],
  [
    "trickles",
    (_, response) => {
      response.writeHead(200, { "content-length": CONTENT.length });
      const timer = setInterval(() => response.write("x"), 20);
      response.on("close", () => clearInterval(timer));
    },
  ],
])("an origin that %s is given up", async (_, handler) => {
  const { url, seen } = await origin(handler);
  // Each byte that trickles in is something, so only tries that bring nothing at all are counted: bound the time.
  const error = await failure(get(url, { readTimeoutMs: 200, tries: 1 }));
  expect(error.message).toContain("sent nothing for too long");
  expect(seen).toHaveLength(1);
});

test("an answer in another encoding is refused", async () => {
  const { url, seen } = await origin((_, response) =>
    response.writeHead(200, { "content-encoding": "gzip" }).end(CONTENT),
  );
  expect((await failure(get(url))).message).toContain("gzip");
  expect(seen[0]?.headers["accept-encoding"]).toBe("identity");
});

describe("redirects", () => {
  const to = (location: string, status = 302): Handler => {
    return (request, response, count) => {
      if (request.url === "/moved") serve(request, response, count);
      else response.writeHead(status, { location }).end();
    };
  };

  test.each([301, 302, 303, 307, 308])("within the origin are followed (%d)", async (status) => {
    const { url } = await origin(to("/moved", status));
    await get(url);
    expect(got()).toEqual(CONTENT);
  });

  test.each([
    ["https://127.0.0.1/x", "another scheme"],
    ["ftp://example.org/x", "another scheme"],
    ["file:///etc/passwd", "another scheme"],
    ["http://10.0.0.1/x", "private address"],
    ["http://[::1]/x", "private address"],
    ["http://[::ffff:169.254.169.254]/x", "private address"],
    ["http://0x7f000001/x", "private address"],
    // A name that is looked up.
    ["http://localhost:9/x", "private address"],
    ["http://[", "no address"],
  ])("to %s are refused", async (location, reason) => {
    const { url } = await origin(to(location));
    const error = await failure(get(url));
    expect(error).toMatchObject({ retryable: false, message: expect.stringContaining(reason) });
  });

  test("to another private address are followed if that is allowed, without the first one's headers", async () => {
    const other = await origin(serve);
    const { url, seen } = await origin(to(other.url));
    expect((await failure(get(url))).message).toContain("private address");
    await get(url, { allowPrivateRedirects: true, headers: { authorization: "secret" } });
    expect(got()).toEqual(CONTENT);
    expect(seen.at(-1)?.headers.authorization).toBe("secret");
    expect(other.seen.at(-1)?.headers.authorization).toBeUndefined();
  });

  test("in a circle are given up", async () => {
    const { url } = await origin(to("/again"));
    expect((await failure(get(url))).message).toContain("too often");
  });
});

test("a proxy of the environment is used", async () => {
  const proxy = await origin((_, response) => response.writeHead(418).end());
  proxy.seen.length = 0;
  const server = servers.at(-1);
  const connects: string[] = [];
  server?.on("connect", (request, socket) => {
    connects.push(String(request.url));
    socket.end("HTTP/1.1 502 Bad Gateway\r\n\r\n");
  });
  const before = { ...process.env };
  process.env["http_proxy"] = new URL(proxy.url).origin;
  process.env["no_proxy"] = "";
  try {
    await failure(get("http://models.example/model.onnx", { tries: 1 }));
  } finally {
    for (const name of ["http_proxy", "no_proxy"]) {
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    }
  }
  expect([...connects, ...proxy.seen.map(({ url }) => url)].join()).toContain("models.example");
});

test("only http and https are known", async () => {
  await expect(get("file:///etc/passwd")).rejects.toThrow("Expected a URL of http or https");
});

test("a folder where the file should be is the disk's error, not the origin's", async () => {
  const { url, seen } = await origin(serve);
  mkdirSync(join(folder, "model.onnx/full"), { recursive: true });
  await expect(get(url)).rejects.toMatchObject({ code: expect.stringMatching(/EISDIR|ENOTEMPTY|EEXIST/) });
  expect(seen).toHaveLength(1);
});

describe("paths", () => {
  test.each(["../x", "a/../../x", "/etc/passwd", "", ".", "a\\..\\x", "a\0b", ".."])(
    "%j leads out",
    async (name) => {
      await expect(pathWithin(folder, name)).rejects.toThrow("leads out");
    },
  );

  test("names below the folder are paths, in any script, existing or not", async () => {
    for (const name of ["model.onnx", "a/b/c d", "модель.onnx", "..a"]) {
      expect(await pathWithin(folder, name)).toBe(join(folder, name));
    }
  });

  test("a symbolic link out of the folder is not followed", async () => {
    symlinkSync(tmpdir(), join(folder, "link"));
    await expect(pathWithin(folder, "link/x")).rejects.toThrow("leads out");
  });
});

test.each([
  ["127.0.0.1", true],
  ["10.1.2.3", true],
  ["172.31.255.255", true],
  ["172.32.0.1", false],
  ["169.254.169.254", true],
  ["100.64.0.1", true],
  ["0.0.0.0", true],
  ["8.8.8.8", false],
  ["::1", true],
  ["::", true],
  ["fd00::1", true],
  ["fe80::1", true],
  ["::ffff:10.0.0.1", true],
  ["::ffff:8.8.8.8", false],
  ["2606:4700::1111", false],
])("%s is private: %s", (address, expected) => {
  expect(isPrivate(address)).toBe(expected);
});
