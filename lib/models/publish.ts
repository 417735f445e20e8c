import { copyFile, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { flush } from "./download.ts";
import { listVersions, readManifest, verifyFiles } from "./manifest.ts";

export interface PublishOptions {
  /** A version's folder, `<name>/<version>` with its manifest. */
  readonly from: string;
  /** Folder of the models it goes to. */
  readonly to: string;
  /** @default one more than the newest there */
  readonly version?: number | undefined;
}

/**
 * Copies a version into a folder of models under a number of its own. It is there at once, as a whole: it is written
 * beside, flushed to the disk, and renamed. The model's `index.json`, by which an origin is read, has it then.
 *
 * @returns the version's folder
 * @throws ManifestError if it is not complete
 * @throws Error if there is a version of that number
 */
export async function publish({ from, to, version: wanted }: PublishOptions): Promise<string> {
  const manifest = readManifest(from);
  await verifyFiles(manifest, from);
  const model = resolve(to, manifest.name);
  const version = wanted ?? (listVersions(model).at(-1) ?? 0) + 1;
  const incoming = resolve(to, ".incoming", `${manifest.name}-${version}-${process.pid}`);
  try {
    for (const { path } of manifest.files) {
      const file = resolve(incoming, path);
      await mkdir(dirname(file), { recursive: true });
      await copyFile(resolve(from, path), file);
      await flush(file);
    }
    const text = `${JSON.stringify({ ...manifest, version }, null, 2)}\n`;
    await writeFile(resolve(incoming, "manifest.json"), text, { flush: true });
    await mkdir(model, { recursive: true });
    const dir = resolve(model, String(version));
    if ((await readdir(model)).includes(String(version))) throw new Error(`There is a folder ${dir} already`);
    await rename(incoming, dir);
    await flush(model);
    await writeIndex(model);
    return dir;
  } finally {
    await rm(incoming, { recursive: true, force: true });
  }
}

/** What an origin is asked for first: the versions in `<models>/<name>`. */
async function writeIndex(model: string): Promise<void> {
  const path = resolve(model, "index.json");
  const text = `${JSON.stringify({ versions: listVersions(model) })}\n`;
  if ((await readFile(path, "utf8").catch(() => "")) === text) return;
  await writeFile(`${path}.${process.pid}`, text, { flush: true });
  await rename(`${path}.${process.pid}`, path);
}
