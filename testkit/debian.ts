import { execFile } from "node:child_process";
import { access } from "node:fs/promises";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Whether there is a file at a path. */
export function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/**
 * The first of `paths` that exists; where none does, after installing a Debian package as root. RUNLEVEL keeps the
 * package from starting a service of its own.
 */
export async function installed(
  paths: readonly string[],
  debianPackage: string,
): Promise<string | undefined> {
  const found = await firstOf(paths);
  if (found || process.getuid?.() !== 0 || !(await exists("/usr/bin/apt-get"))) return found;
  const env = { ...process.env, RUNLEVEL: "1", DEBIAN_FRONTEND: "noninteractive" };
  await run("apt-get", ["update"], { env });
  await run("apt-get", ["install", "--yes", "--no-install-recommends", debianPackage], { env });
  return firstOf(paths);
}

async function firstOf(paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) if (await exists(path)) return path;
  return undefined;
}
