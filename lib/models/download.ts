import { createHash, type Hash, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, mkdir, open, realpath, rename, rm, stat, truncate } from "node:fs/promises";
import { dirname, isAbsolute, relative, resolve, sep } from "node:path";
import { finished } from "node:stream/promises";
import { setTimeout as delay } from "node:timers/promises";
import { type Dispatcher, EnvHttpProxyAgent, request } from "undici";
import { namesPrivate, PrivateAddressError, publicLookup } from "./addresses.ts";

export interface DownloadOptions {
  /** `http:` or `https:`. The one who names it may mean a private address; whom it redirects to may not. */
  readonly url: string | URL;
  /** The file it becomes. It is there whole, or not at all. */
  readonly to: string;
  /** Bytes of the file, if they are known: anything else is another file. */
  readonly bytes?: number;
  /** Of the file, lower-case hex, if it is known. Only then is a half file of an earlier process gone on with. */
  readonly sha256?: string;
  /** The largest file that is taken. */
  readonly maxBytes: number;
  /** E.g. for authorisation; not sent to another origin that the first redirects to. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Whether redirects may lead to private addresses. @default false */
  readonly allowPrivateRedirects?: boolean;
  /**
   * Milliseconds in which at least 1 KiB must come, from the connection on. An origin that is slower does not answer.
   *
   * @default 30_000
   */
  readonly readTimeoutMs?: number;
  /** Tries one after another that bring nothing, before it is given up. @default 5 */
  readonly tries?: number;
  /** Milliseconds before the second try; doubled for each further one. @default 500 */
  readonly retryDelayMs?: number;
  /** Gives up; the half file stays for the next time. */
  readonly signal?: AbortSignal;
  /** How far it is; `total` is undefined if nobody says. */
  readonly onProgress?: (done: number, total: number | undefined) => void;
}

export interface Downloaded {
  readonly bytes: number;
  readonly sha256: string;
}

/** Why a file could not be had. */
export class DownloadError extends Error {
  /** Whether trying again may help. */
  readonly retryable: boolean;
  /** HTTP status of the answer, if it was that. */
  readonly status: number | undefined;
  /** Milliseconds after which the origin wants to be asked again. */
  readonly retryAfterMs: number | undefined;

  constructor(
    message: string,
    details: {
      readonly retryable?: boolean;
      readonly status?: number;
      readonly retryAfterMs?: number;
      cause?: unknown;
    } = {},
  ) {
    super(message, { cause: details.cause });
    this.name = "DownloadError";
    this.retryable = details.retryable ?? false;
    this.status = details.status;
    this.retryAfterMs = details.retryAfterMs;
  }
}

const LEAST_BYTES_PER_READ = 1024;
const READ_TIMEOUT_MS = 30_000;
const TRIES = 5;
const RETRY_DELAY_MS = 500;
const LONGEST_DELAY_MS = 30_000;
const MAX_REDIRECTS = 5;
/** Bytes that may wait for the disk. */
const MOST_WAITING = 4 << 20;
const SLOW_DOWN = new Set([408, 425, 429, 500, 502, 503, 504]);

/**
 * Fetches one file over HTTP. Goes on where a dropped connection stopped, checks size and digest, and only then gives
 * the file its name: it is written beside under another one and flushed to the disk before.
 *
 * Proxies are those of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
 *
 * @throws DownloadError when it cannot be had
 * @throws Error of the file system: no space, no permission
 */
export async function download(options: DownloadOptions): Promise<Downloaded> {
  return new Download(options).run();
}

/**
 * The path of `name` below `folder`, for names that come from elsewhere.
 *
 * @throws DownloadError if it leads out of the folder, also by a symbolic link that is there already
 */
export async function pathWithin(folder: string, name: string): Promise<string> {
  const refused = new DownloadError(`The path ${JSON.stringify(name)} leads out of its folder`);
  if (name === "" || isAbsolute(name) || /[\0\\]/.test(name)) throw refused;
  const path = resolve(folder, name);
  const outside = (from: string, to: string) => {
    const way = relative(from, to);
    return way === "" || way === ".." || way.startsWith(`..${sep}`) || isAbsolute(way);
  };
  if (outside(resolve(folder), path)) throw refused;
  // The nearest part of it that exists must really lie in the folder.
  const root = await existing(resolve(folder));
  for (let at = path; at !== resolve(folder); at = dirname(at)) {
    const real = await realpath(at).catch(() => undefined);
    if (real === undefined) continue;
    if (outside(root, real)) throw refused;
    break;
  }
  return path;
}

async function existing(path: string): Promise<string> {
  return realpath(path).catch(() => path);
}

class Download {
  readonly #options: DownloadOptions;
  readonly #url: URL;
  readonly #part: string;
  /** Of what the origin has, as it said it first: only the rest of the same thing fits. */
  #validator: string | undefined;
  #total: number | undefined;
  /** Whether the half file is of an earlier process. */
  #inherited = false;

  constructor(options: DownloadOptions) {
    this.#options = options;
    this.#url = new URL(options.url);
    if (!/^https?:$/.test(this.#url.protocol)) {
      throw new DownloadError(`Expected a URL of http or https but received ${this.#url.protocol}`);
    }
    const { bytes, maxBytes, to, sha256 } = options;
    if (bytes !== undefined && bytes > maxBytes) throw tooLarge(this.#url, bytes, maxBytes);
    this.#total = bytes;
    // Without a digest nobody can say whether the halves of two processes belong together.
    this.#part = sha256 ? `${to}.${sha256.slice(0, 16)}.part` : `${to}.${randomUUID()}.part`;
  }

  async run(): Promise<Downloaded> {
    const { tries = TRIES, retryDelayMs = RETRY_DELAY_MS, signal, to, sha256 } = this.#options;
    await mkdir(dirname(to), { recursive: true });
    this.#inherited = (await this.#size()) > 0;
    try {
      for (let failed = 0; ; ) {
        const before = await this.#size();
        try {
          await this.#fetchRest();
          return await this.#finish();
        } catch (error) {
          signal?.throwIfAborted();
          if (!(error instanceof DownloadError) || !error.retryable) throw error;
          if (error instanceof StartOver) await this.#forget();
          // What brought something on was no failure.
          failed = (await this.#size()) > before ? 1 : failed + 1;
          if (failed >= tries) throw error;
          const wait = Math.max(retryDelayMs * 2 ** (failed - 1), error.retryAfterMs ?? 0);
          await delay(Math.min(wait, LONGEST_DELAY_MS), undefined, { ...(signal ? { signal } : {}) });
        }
      }
    } catch (error) {
      // A half file is worth keeping only for who can tell that its other half fits, and if there is room.
      const keep = sha256 && (signal?.aborted || (error instanceof DownloadError && error.retryable));
      if (!keep) await rm(this.#part, { force: true });
      throw error;
    }
  }

  async #size(): Promise<number> {
    return stat(this.#part).then(
      ({ size }) => size,
      () => 0,
    );
  }

  /** Asks for what is missing and appends it. */
  async #fetchRest(): Promise<void> {
    const have = await this.#size();
    if (this.#total !== undefined && have === this.#total) return;
    const stall = new StallGuard(this.#options.readTimeoutMs ?? READ_TIMEOUT_MS);
    const signals = [stall.signal, ...(this.#options.signal ? [this.#options.signal] : [])];
    try {
      await this.#exchange(have, AbortSignal.any(signals), stall);
    } catch (error) {
      this.#options.signal?.throwIfAborted();
      throw this.#explained(error, stall);
    } finally {
      stall.stop();
    }
  }

  async #exchange(have: number, signal: AbortSignal, stall: StallGuard): Promise<void> {
    const rest = have > 0 && (this.#options.sha256 !== undefined || this.#validator !== undefined);
    const { response, close } = await this.#follow(rest ? have : 0, signal);
    try {
      const from = this.#begins(response, rest ? have : 0);
      await this.#append(response.body, from, have, stall);
    } finally {
      response.body.on("error", () => {}).destroy();
      await close();
    }
  }

  /** The answer at the end of the redirects. */
  async #follow(from: number, signal: AbortSignal): Promise<Answer> {
    let url = this.#url;
    for (let redirects = 0; ; redirects++) {
      const answer = await this.#ask(url, from, signal);
      const { statusCode, headers } = answer.response;
      if (![301, 302, 303, 307, 308].includes(statusCode)) return answer;
      answer.response.body.on("error", () => {}).destroy();
      await answer.close();
      if (redirects === MAX_REDIRECTS) throw new DownloadError(`${this.#url} redirects too often`);
      url = this.#redirected(url, String(headers["location"] ?? ""));
    }
  }

  #redirected(from: URL, location: string): URL {
    if (!URL.canParse(location, from.href)) throw new DownloadError(`${from} redirects to no address`);
    const to = new URL(location, from);
    if (to.protocol !== from.protocol)
      throw new DownloadError(`${from} redirects to another scheme, ${to.protocol}`);
    if (this.#mustBePublic(to) && namesPrivate(to)) {
      throw new DownloadError(`${from} redirects to a private address, ${to.host}`);
    }
    return to;
  }

  #mustBePublic(url: URL): boolean {
    return url.origin !== this.#url.origin && !this.#options.allowPrivateRedirects;
  }

  async #ask(url: URL, from: number, signal: AbortSignal): Promise<Answer> {
    const agent = new EnvHttpProxyAgent({
      // Our own guard watches over both.
      headersTimeout: 0,
      bodyTimeout: 0,
      ...(this.#mustBePublic(url) ? { connect: { lookup: publicLookup } } : {}),
    });
    const own = url.origin === this.#url.origin ? this.#options.headers : {};
    const range =
      from > 0
        ? { range: `bytes=${from}-`, ...(this.#validator ? { "if-range": this.#validator } : {}) }
        : {};
    const headers = { "accept-encoding": "identity", "user-agent": "dl-lambda", ...own, ...range };
    const close = () => agent.destroy();
    try {
      return { response: await request(url, { dispatcher: agent, headers, signal }), close };
    } catch (error) {
      await close();
      throw error;
    }
  }

  /** Where in the file the answer's body begins. Learns what the answer says about the file. */
  #begins({ statusCode, headers }: Dispatcher.ResponseData, asked: number): number {
    const url = this.#url;
    if (statusCode !== 200 && statusCode !== 206) {
      // The rest that was asked for is not there: the half file is of something else.
      if (statusCode === 416) throw new StartOver(`${url} has no rest of what is here`, { retryable: true });
      throw new DownloadError(`${url} answered ${statusCode}`, {
        status: statusCode,
        retryable: SLOW_DOWN.has(statusCode),
        ...retryAfter(headers["retry-after"]),
      });
    }
    if (!["", "identity"].includes(String(headers["content-encoding"] ?? ""))) {
      throw new DownloadError(`${url} answered in the encoding ${headers["content-encoding"]}`);
    }
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(String(headers["content-range"] ?? ""));
    const from = statusCode === 206 ? Number(range?.[1] ?? Number.NaN) : 0;
    if (statusCode === 206 && from !== asked)
      throw new StartOver(`${url} answered with another range`, { retryable: true });
    const length = Number(headers["content-length"] ?? Number.NaN);
    const total = statusCode === 206 && range?.[2] !== "*" ? Number(range?.[2]) : from + length;
    if (Number.isFinite(total)) this.#learn(total);
    this.#validator = strongValidator(headers);
    return from;
  }

  #learn(total: number): void {
    const { bytes, maxBytes } = this.#options;
    if (bytes !== undefined && total !== bytes) {
      throw new DownloadError(`${this.#url} has ${total} bytes instead of ${bytes}`);
    }
    if (total > maxBytes) throw tooLarge(this.#url, total, maxBytes);
    this.#total = total;
  }

  /** @param have bytes of the half file, of which those after `from` are overwritten */
  async #append(
    body: Dispatcher.ResponseData["body"],
    from: number,
    have: number,
    stall: StallGuard,
  ): Promise<void> {
    const { maxBytes, onProgress } = this.#options;
    // Not before the first chunk: who waits for the disk first misses what a broken connection brought.
    let file: FileHandle | undefined;
    let at = from;
    try {
      await eachChunk(body, async (chunk) => {
        if (!file && from < have) await truncate(this.#part, from);
        file ??= await open(this.#part, "a");
        at += chunk.length;
        if (at > Math.min(maxBytes, this.#total ?? maxBytes)) throw tooLarge(this.#url, at, maxBytes);
        await writeAll(file, chunk);
        stall.saw(chunk.length);
        onProgress?.(at, this.#total);
      });
      // Of nothing, too, there is a file.
      file ??= await open(this.#part, "a");
    } finally {
      await file?.close();
    }
    if (this.#total !== undefined && at < this.#total) {
      throw new DownloadError(`${this.#url} stopped after ${at} of ${this.#total} bytes`, {
        retryable: true,
      });
    }
    this.#total = at;
  }

  /** Checks the file, and gives it its name. */
  async #finish(): Promise<Downloaded> {
    const { sha256, to, bytes } = this.#options;
    const size = await this.#size();
    const digest = (await digestOf(this.#part)).digest("hex");
    if ((sha256 !== undefined && digest !== sha256) || (bytes !== undefined && size !== bytes)) {
      const reason = `${this.#url} is another file than expected: sha256 ${digest} instead of ${sha256 ?? "any"}, ${size} bytes`;
      // The half that was here may have been what is wrong.
      throw this.#inherited ? new StartOver(reason, { retryable: true }) : new DownloadError(reason);
    }
    await flush(this.#part);
    await rename(this.#part, to);
    await flush(dirname(to));
    return { bytes: size, sha256: digest };
  }

  /** The half file is nothing to go on with. */
  async #forget(): Promise<void> {
    await rm(this.#part, { force: true });
    this.#validator = undefined;
    this.#total = this.#options.bytes;
    this.#inherited = false;
  }

  #explained(error: unknown, stall: StallGuard): Error {
    if (stall.signal.aborted) {
      return new DownloadError(`${this.#url} sent nothing for too long`, { retryable: true, cause: error });
    }
    if (error instanceof DownloadError) return error;
    const { code, message, cause } = error as NodeJS.ErrnoException & { cause?: unknown };
    if (error instanceof PrivateAddressError || cause instanceof PrivateAddressError) {
      return new DownloadError(`${this.#url} redirects to a private address: ${message}`, { cause: error });
    }
    // What the disk says is not the origin's fault.
    if (
      code !== undefined &&
      /^(ENOSPC|EDQUOT|EROFS|EACCES|EPERM|EIO|EFBIG|ENOENT|EISDIR|ENOTDIR)$/.test(code)
    ) {
      return error as Error;
    }
    return new DownloadError(`${this.#url} cannot be read: ${message}`, { retryable: true, cause: error });
  }
}

interface Answer {
  readonly response: Dispatcher.ResponseData;
  readonly close: () => Promise<void>;
}

/** The half file that is there fits nothing. */
class StartOver extends DownloadError {}

/** Aborts if too little comes for too long. */
class StallGuard {
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;
  #seen = 0;

  constructor(ms: number) {
    this.#timer = setInterval(() => {
      if (this.#seen < LEAST_BYTES_PER_READ) this.#controller.abort(new Error("stalled"));
      this.#seen = 0;
    }, ms);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  saw(bytes: number): void {
    this.#seen += bytes;
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

/**
 * Hands on each chunk in its turn, also those that came before the connection broke: a stream that is iterated over
 * drops what it holds when it fails, and a connection that always breaks early would never bring anything.
 */
async function eachChunk(
  body: Dispatcher.ResponseData["body"],
  take: (chunk: Buffer) => Promise<void>,
): Promise<void> {
  let waiting = 0;
  let last: Promise<void> = Promise.resolve();
  body.on("data", (chunk: Buffer) => {
    waiting += chunk.length;
    if (waiting > MOST_WAITING) body.pause();
    last = last.then(async () => {
      await take(chunk);
      waiting -= chunk.length;
      if (waiting <= MOST_WAITING) body.resume();
    });
    last.catch((error: Error) => body.destroy(error));
  });
  // The disk's error, if there is one: it is why the stream was destroyed.
  await finished(body).finally(() => last);
}

async function writeAll(file: FileHandle, chunk: Buffer): Promise<void> {
  for (let at = 0; at < chunk.length; ) at += (await file.write(chunk, at)).bytesWritten;
}

/** Waits until the disk has a file, or the names in a folder. */
export async function flush(path: string): Promise<void> {
  const file = await open(path, "r");
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

async function digestOf(file: string): Promise<Hash> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer);
  return hash;
}

function tooLarge(url: URL, bytes: number, maxBytes: number): DownloadError {
  return new DownloadError(`${url} is too large: ${bytes} bytes, at most ${maxBytes} are taken`);
}

/** An entity tag that promises the very same bytes. */
function strongValidator(headers: Dispatcher.ResponseData["headers"]): string | undefined {
  const etag = headers["etag"];
  return typeof etag === "string" && !etag.startsWith("W/") ? etag : undefined;
}

function retryAfter(value: unknown): { retryAfterMs?: number } {
  const seconds = Number(value ?? Number.NaN);
  return Number.isFinite(seconds) && seconds >= 0 ? { retryAfterMs: seconds * 1000 } : {};
}
