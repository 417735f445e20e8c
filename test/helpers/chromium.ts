import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { promisify } from "node:util";
import { type Browser, chromium } from "playwright-core";

const DEBIAN_PATH = "/usr/bin/chromium";
const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Time to allow a `beforeAll` that launches Chromium, in milliseconds: the first one may have to install it. */
export const LAUNCH_TIMEOUT = 300_000;

/**
 * A real Chromium: the one at `CHROMIUM_PATH`, else Debian's, which is installed first where it is missing and we
 * may. Playwright's own download is not used: it needs a host that many build machines do not reach.
 */
export async function launchChromium(): Promise<Browser> {
  return chromium.launch({ executablePath: await findChromium(), args: FLAGS });
}

async function findChromium(): Promise<string> {
  const path = process.env["CHROMIUM_PATH"] ?? DEBIAN_PATH;
  if (existsSync(path)) return path;
  if (path === DEBIAN_PATH && process.getuid?.() === 0 && existsSync("/etc/debian_version")) {
    await install();
    return path;
  }
  throw new Error(
    `No Chromium at ${path}. Install the package "chromium", or set CHROMIUM_PATH to the executable.`,
  );
}

async function install(): Promise<void> {
  const run = promisify(execFile);
  const options = { env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" } };
  await run("apt-get", ["update"], options);
  await run("apt-get", ["install", "-y", "--no-install-recommends", "chromium"], options);
}
