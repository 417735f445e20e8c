import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { fileEntry, type Manifest } from "./manifest.ts";

/**
 * Writes a version's folder: nothing is there until all is. What was there before is gone.
 *
 * @param to `<name>/<version>`, which the manifest is given
 * @param files path and content, the one that the runtime opens first
 */
export async function writeVersionFolder(
  to: string,
  { $schema: _, ...manifest }: Omit<Manifest, "name" | "version" | "files">,
  files: readonly (readonly [path: string, content: Uint8Array])[],
): Promise<void> {
  const dir = resolve(to);
  const unfinished = `${dir}.part`;
  await rm(unfinished, { recursive: true, force: true });
  for (const [path, content] of files) {
    const file = join(unfinished, path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, content);
  }
  const whole = {
    ...manifest,
    name: basename(dirname(dir)),
    version: Number(basename(dir)),
    files: files.map(([path, content]) => fileEntry(path, content)),
  } satisfies Manifest;
  await writeFile(join(unfinished, "manifest.json"), `${JSON.stringify(whole, null, 2)}\n`);
  await rm(dir, { recursive: true, force: true });
  await rename(unfinished, dir);
}
