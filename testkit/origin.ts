import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** How an origin treats a path, before it answers with what it has; true: it has answered. */
type Mischief = (req: IncomingMessage, res: ServerResponse, bytes: Uint8Array | undefined) => boolean;

/** An HTTP origin of versions, on loopback, that misbehaves as it is told. */
export class TestOrigin {
  readonly #server = createServer((req, res) => this.#answer(req, res));
  #port = 0;
  readonly #files = new Map<string, Uint8Array>();
  /** Paths that were asked for, each as often. */
  readonly asked: string[] = [];
  /** Headers of the last request. */
  headers: IncomingMessage["headers"] = {};
  mischief: Mischief = () => false;

  static async start(): Promise<TestOrigin> {
    const origin = new TestOrigin();
    origin.#server.listen(0, "127.0.0.1");
    await once(origin.#server, "listening");
    origin.#port = (origin.#server.address() as AddressInfo).port;
    return origin;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}/tree`;
  }

  /** Has a version of a model, and says so in the index. */
  put(model: string, version: number, files: Readonly<Record<string, Uint8Array>>): void {
    for (const [name, bytes] of Object.entries(files))
      this.#files.set(`/tree/${model}/${version}/${name}`, bytes);
    const prefix = `/tree/${model}/`;
    const versions = [...this.#files.keys()].flatMap((path) =>
      path.startsWith(prefix) && path.endsWith("/manifest.json")
        ? Number(path.slice(prefix.length).split("/")[0])
        : [],
    );
    this.set(`${model}/index.json`, Buffer.from(JSON.stringify({ versions })));
  }

  set(path: string, bytes: Uint8Array): void {
    this.#files.set(`/tree/${path}`, bytes);
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  #answer(req: IncomingMessage, res: ServerResponse): void {
    const path = req.url ?? "";
    this.asked.push(path);
    this.headers = req.headers;
    const bytes = this.#files.get(path);
    if (this.mischief(req, res, bytes)) return;
    if (!bytes) return void res.writeHead(404).end();
    const from = Number(/^bytes=(\d+)-$/.exec(req.headers.range ?? "")?.[1] ?? 0);
    const headers =
      from > 0 ? { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` } : undefined;
    res.writeHead(from > 0 ? 206 : 200, { "content-length": bytes.length - from, ...headers });
    res.end(bytes.subarray(from));
  }
}
