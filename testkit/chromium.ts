import { type Browser, chromium } from "playwright-core";
import { installed } from "./debian.ts";

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
  const path = process.env["CHROMIUM_PATH"] ?? (await installed(["/usr/bin/chromium"], "chromium"));
  if (path) return path;
  throw new Error(
    'There is no Chromium. Install the package "chromium", or set CHROMIUM_PATH to the executable.',
  );
}
