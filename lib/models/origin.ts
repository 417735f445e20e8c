import { randomUUID } from "node:crypto";
import { mkdir, open, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { z } from "zod";
import { problemsOf } from "../check.ts";
import { download, flush, pathWithin } from "./download.ts";
import { type Manifest, readManifest, verifyFiles } from "./manifest.ts";
import type { FolderRepository, Found, Listing, Problem, Repository } from "./repository.ts";

export interface OriginOptions {
  /** Below each is the same tree as in the models' folder, with `<model>/index.json`. One is a mirror of the other. */
  readonly origins: readonly string[];
  /** Sent with each request, for authorisation; not to where an origin redirects to. */
  readonly headers: Readonly<Record<string, string>>;
  /** The largest version that is fetched, bytes of all its files. */
  readonly maxBytes: number;
  /** Whether an origin may redirect to a private address. */
  readonly allowPrivateRedirects: boolean;
  /** Milliseconds in which an origin has to send at least 1 KiB. @default 15_000 */
  readonly readTimeoutMs?: number;
  /** Milliseconds before something is asked for again. @default 500 */
  readonly retryDelayMs?: number;
  /** Milliseconds that index or manifest may take in all. @default 30_000 */
  readonly smallTimeoutMs?: number;
}

const index = z.looseObject({
  versions: z.array(z.int().min(1)).max(10_000),
});

const READ_TIMEOUT_MS = 15_000;
const SMALL_TIMEOUT_MS = 30_000;
const MAX_INDEX_BYTES = 1 << 20;
/** The names of twenty thousand classes are 400 KB. */
const MAX_MANIFEST_BYTES = 4 << 20;
const TRIES = 3;
/** Files that come more slowly than this on the average are given up: else one would keep newer versions waiting for ever. */
const LEAST_BYTES_PER_MS = 64;
const LEAST_FILE_MS = 60_000;
/** A lock that nobody has touched for so long is of a process that has ended. */
const STALE_LOCK_MS = 30_000;
const TOUCH_LOCK_MS = 5_000;

/** Fetches under way in this process, by the folder that a version is to have. */
const fetches = new Map<string, Promise<string>>();

/**
 * The versions of a model in a folder, and those that origins have besides and that can be fetched into it.
 *
 * A version is fetched into `models/.incoming/<name>/<version>` and gets its place by one rename, when all of its files
 * have the digests of its manifest. What is half there is gone on with, also by another process. While origins cannot be
 * read, what is in the folder serves.
 */
export class OriginRepository implements Repository {
  readonly #folder: FolderRepository;
  readonly #modelsDir: string;
  readonly #model: string;
  readonly #options: OriginOptions;

  constructor(folder: FolderRepository, modelsDir: string, model: string, options: OriginOptions) {
    this.#folder = folder;
    this.#modelsDir = resolve(modelsDir);
    this.#model = model;
    this.#options = options;
  }

  /** What is in the folder. */
  local(): Promise<Listing> {
    return this.#folder.list();
  }

  async list(signal: AbortSignal): Promise<Listing> {
    const [local, ...remote] = await Promise.all([
      this.#folder.list(),
      ...this.#options.origins.map((origin) => this.#index(origin, signal)),
    ]);
    const problems: Problem[] = [...local.problems];
    const having = new Map<number, string[]>();
    for (const { origin, versions, problem } of remote) {
      if (problem) problems.push({ reason: problem });
      for (const version of versions) having.set(version, [...(having.get(version) ?? []), origin]);
    }
    const here = new Set(local.found.map(({ version }) => version));
    const there = [...having].flatMap(([version, origins]): Found[] => {
      if (here.has(version)) return [];
      const fetch = (signal: AbortSignal) => this.#fetchOnce(version, origins, signal);
      return [{ version, fingerprint: undefined, stamp: "", fetch }];
    });
    return { found: [...local.found, ...there].sort((a, b) => a.version - b.version), problems };
  }

  async #index(origin: string, signal: AbortSignal): Promise<Index> {
    try {
      const bytes = await this.#small(origin, `${this.#model}/index.json`, MAX_INDEX_BYTES, signal);
      const value: unknown = JSON.parse(bytes.toString("utf8"));
      const problems = problemsOf(index, value, "index.json");
      if (problems.length > 0) throw new Error(problems.slice(0, 3).join("; "));
      return { origin, versions: new Set((value as z.infer<typeof index>).versions) };
    } catch (error) {
      return { origin, versions: new Set(), problem: `${named(origin)}: ${(error as Error).message}` };
    }
  }

  /** Services of one process that want the same version fetch it together. */
  #fetchOnce(version: number, origins: readonly string[], signal: AbortSignal): Promise<string> {
    const dir = resolve(this.#modelsDir, this.#model, String(version));
    const running = fetches.get(dir);
    if (running) return running;
    const fetched = this.#fetch(version, dir, origins, signal).finally(() => fetches.delete(dir));
    fetches.set(dir, fetched);
    return fetched;
  }

  async #fetch(
    version: number,
    dir: string,
    origins: readonly string[],
    signal: AbortSignal,
  ): Promise<string> {
    const incoming = resolve(this.#modelsDir, ".incoming", this.#model, String(version));
    await mkdir(incoming, { recursive: true });
    return locked(`${incoming}.lock`, async () => {
      // Another process may have been first.
      if (await isThere(resolve(dir, "manifest.json"))) return dir;
      const manifest = await this.#manifest(version, incoming, origins, signal);
      for (const file of manifest.files) {
        await this.#file(`${this.#model}/${version}`, incoming, file, origins, signal);
      }
      await verifyFiles(manifest, incoming).catch(async (error: unknown) => {
        await rm(incoming, { recursive: true, force: true });
        throw error;
      });
      await mkdir(dirname(dir), { recursive: true });
      await rename(incoming, dir);
      await flush(dirname(dir));
      return dir;
    });
  }

  /**
   * The manifest that all origins agree on; it lies in the folder then.
   *
   * @throws Error if they do not, none has one, or it describes what is too large
   */
  async #manifest(
    version: number,
    incoming: string,
    origins: readonly string[],
    signal: AbortSignal,
  ): Promise<Manifest> {
    const path = `${this.#model}/${version}/manifest.json`;
    const answers = await Promise.allSettled(
      origins.map((origin) => this.#small(origin, path, MAX_MANIFEST_BYTES, signal)),
    );
    const had = answers.flatMap((answer) => (answer.status === "fulfilled" ? [answer.value] : []));
    const [first, ...others] = had;
    if (!first) throw (answers[0] as PromiseRejectedResult).reason;
    if (others.some((other) => !other.equals(first))) {
      throw new Error(`The origins disagree about version ${version}: ${origins.map(named).join(", ")}`);
    }
    const file = resolve(incoming, "manifest.json");
    const before = await readFile(file).catch(() => undefined);
    if (before && !before.equals(first)) {
      // What is half there is of something else.
      await rm(incoming, { recursive: true });
      await mkdir(incoming);
    }
    await writeFile(file, first, { flush: true });
    const manifest = readManifest(incoming);
    const bytes = manifest.files.reduce((sum, file) => sum + file.bytes, 0);
    if (bytes > this.#options.maxBytes) {
      throw new Error(
        `Version ${version} is too large: ${bytes} bytes, at most ${this.#options.maxBytes} are fetched`,
      );
    }
    return manifest;
  }

  /** From the first origin that has it. */
  async #file(
    folder: string,
    incoming: string,
    { path, bytes, sha256 }: Manifest["files"][number],
    origins: readonly string[],
    signal: AbortSignal,
  ): Promise<void> {
    const to = await pathWithin(incoming, path);
    const { size } = await stat(to).catch(() => ({ size: -1 }));
    // Its digest is compared with all the others'.
    if (size === bytes) return;
    let failed: unknown;
    for (const origin of origins) {
      try {
        await download({
          ...this.#common(origin, `${folder}/${path}`),
          to,
          bytes,
          sha256,
          maxBytes: bytes,
          signal: AbortSignal.any([
            signal,
            AbortSignal.timeout(Math.ceil(LEAST_FILE_MS + bytes / LEAST_BYTES_PER_MS)),
          ]),
        });
        return;
      } catch (error) {
        failed ??= error;
      }
    }
    throw failed;
  }

  async #small(origin: string, path: string, maxBytes: number, signal: AbortSignal): Promise<Buffer> {
    const folder = resolve(this.#modelsDir, ".incoming");
    const to = resolve(folder, `${randomUUID()}.json`);
    const { smallTimeoutMs = SMALL_TIMEOUT_MS } = this.#options;
    await mkdir(this.#modelsDir, { recursive: true });
    // Not with those above: of a disk that may only be read Node would say then that there is no such folder.
    await mkdir(folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") throw error;
    });
    try {
      await download({
        ...this.#common(origin, path),
        to,
        maxBytes,
        signal: AbortSignal.any([signal, AbortSignal.timeout(smallTimeoutMs)]),
      });
      return await readFile(to);
    } finally {
      await rm(to, { force: true });
    }
  }

  #common(origin: string, path: string) {
    const { headers, allowPrivateRedirects, readTimeoutMs = READ_TIMEOUT_MS, retryDelayMs } = this.#options;
    const encoded = path.split("/").map(encodeURIComponent).join("/");
    return {
      url: new URL(encoded, origin.endsWith("/") ? origin : `${origin}/`),
      headers,
      allowPrivateRedirects,
      readTimeoutMs,
      tries: TRIES,
      ...(retryDelayMs === undefined ? {} : { retryDelayMs }),
    };
  }
}

interface Index {
  readonly origin: string;
  readonly versions: ReadonlySet<number>;
  readonly problem?: string;
}

/** Without what may be a secret. */
function named(origin: string): string {
  const { protocol, host, pathname } = new URL(origin);
  return `${protocol}//${host}${pathname}`;
}

/**
 * Does something that one process may do at a time.
 *
 * @throws Error if another one does it
 */
async function locked<T>(path: string, work: () => Promise<T>): Promise<T> {
  await takeLock(path);
  const touch = setInterval(() => {
    const now = new Date();
    utimes(path, now, now).catch(() => {});
  }, TOUCH_LOCK_MS);
  try {
    return await work();
  } finally {
    clearInterval(touch);
    await rm(path, { force: true });
  }
}

async function takeLock(path: string): Promise<void> {
  for (;;) {
    try {
      await (await open(path, "wx")).close();
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
    const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: 0 }));
    if (Date.now() - mtimeMs < STALE_LOCK_MS) throw new Error("Another process fetches it at the moment");
    await rm(path, { force: true });
  }
}

async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
