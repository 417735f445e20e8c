import { readdir, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { setImmediate as breathe } from "node:timers/promises";
import { mismatch } from "../check.ts";
import { identityOf, ManifestError, readManifest } from "./manifest.ts";

/** One version of a model that a repository has. */
export interface Found {
  readonly version: number;
  /** Undefined: not known before its manifest is fetched. */
  readonly fingerprint: string | undefined;
  /** Another one when any of its files was written again. */
  readonly stamp: string;
  /** The version's folder, complete. @throws what keeps it from being fetched */
  fetch(signal: AbortSignal): Promise<string>;
}

/** What is no version, and why. */
export interface Problem {
  /** Undefined: of the repository as a whole. */
  readonly version?: number;
  readonly reason: string;
}

export interface Listing {
  /** Ascending. */
  readonly found: readonly Found[];
  readonly problems: readonly Problem[];
}

/** Where the versions of one model come from. */
export interface Repository {
  /** What is there now. @throws if nobody can tell */
  list(signal: AbortSignal): Promise<Listing>;
  /** What of it is on this machine, if the rest may take long. */
  local?(): Promise<Listing>;
}

/** More folders than this are not looked into: the newest are. */
const MAX_FOLDERS = 1_000;

/**
 * The versions in `models/<name>`: folders named by a whole number with a valid manifest and files of the sizes it says.
 * Anything else does not exist, so a version can be copied in while the server runs. The digests are compared before a
 * version is loaded, and not at every look.
 */
export class FolderRepository implements Repository {
  readonly #dir: string;
  readonly #runtime: string;
  /** By version; what was found is looked at again only when a file of it has changed. */
  #known: Known = new Map();

  /**
   * @param dir `models/<name>`
   * @param runtime see `identityOf`
   */
  constructor(dir: string, runtime = "") {
    this.#dir = resolve(dir);
    this.#runtime = runtime;
  }

  async list(): Promise<Listing> {
    const found: Found[] = [];
    const problems: Problem[] = [];
    const known: Known = new Map();
    for (const version of await this.#folders()) {
      // Manifests are read and checked at one go: two hundred of them must not hold up what is served.
      await breathe();
      try {
        found.push(await this.#look(version, known));
      } catch (error) {
        problems.push({ version, reason: (error as Error).message });
      }
    }
    this.#known = known;
    return { found, problems };
  }

  async #folders(): Promise<number[]> {
    const names = await readdir(this.#dir).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return [];
      throw error;
    });
    return names
      .filter((name) => /^[1-9]\d{0,14}$/.test(name))
      .map(Number)
      .sort((a, b) => a - b)
      .slice(-MAX_FOLDERS);
  }

  async #look(version: number, known: Known): Promise<Found> {
    const dir = resolve(this.#dir, String(version));
    const manifestStamp = await stampOf(resolve(dir, "manifest.json"));
    const before = this.#known.get(version);
    const manifest = before?.manifestStamp === manifestStamp ? before.manifest : this.#read(dir);
    known.set(version, { manifestStamp, manifest });
    if (manifest instanceof Error) throw manifest;
    const stamps = [manifestStamp];
    const problems: string[] = [];
    for (const { path, bytes } of manifest.files) {
      const file = await stat(resolve(dir, path));
      if (file.size !== bytes) problems.push(mismatch(bytes, `bytes of ${path}`, file.size));
      stamps.push(`${file.size}/${file.mtimeMs}`);
    }
    if (problems.length > 0) throw new ManifestError(dir, problems);
    return { version, fingerprint: manifest.fingerprint, stamp: stamps.join(), fetch: async () => dir };
  }

  #read(dir: string): Looked {
    try {
      const manifest = readManifest(dir);
      return { files: manifest.files, fingerprint: identityOf(manifest, this.#runtime).fingerprint };
    } catch (error) {
      return error as Error;
    }
  }
}

type Known = Map<number, { readonly manifestStamp: string; readonly manifest: Looked }>;

type Looked =
  | {
      readonly files: readonly { readonly path: string; readonly bytes: number }[];
      readonly fingerprint: string;
    }
  | Error;

async function stampOf(path: string): Promise<string> {
  const { size, mtimeMs, ino } = await stat(path);
  return `${size}/${mtimeMs}/${ino}`;
}
