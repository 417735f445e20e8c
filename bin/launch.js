/**
 * Runs a TypeScript file of ours, or says in one line why it cannot be run here. In JavaScript, since that is what a
 * Node that cannot understands. Without a file it only looks.
 *
 * npm runs this by a shell, and tells only that to stop; a shell has no way of passing that on that cmd of Windows has,
 * too. So this looks for its shell.
 *
 *     node bin/launch.js bin/start.ts …
 */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const root = resolve(import.meta.dirname ?? new URL(".", import.meta.url).pathname, "..");

/** How soon what npm has started ends after its shell, milliseconds. */
const ORPHANED_AFTER_MS = 200;

/** Has this process end, in order, when who started it is gone. */
function endWithParent() {
  const parent = process.ppid;
  const watch = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(watch);
    process.kill(process.pid, "SIGTERM");
  }, ORPHANED_AFTER_MS).unref();
}

/** What is missing, if something is. */
function missing() {
  if (!existsSync(resolve(root, "node_modules"))) return "The packages are not installed: run `npm ci`.";
  if (process.features.typescript) return undefined;
  return (
    `DL-Lambda needs Node 22.18 or newer and this is ${process.version}: ` +
    "run `npm ci` (without --omit=dev), which brings Node 24 along, or install a newer Node."
  );
}

const problem = missing();
if (problem) {
  console.error(problem);
  process.exit(1);
}
const [, , file] = process.argv;
if (file) {
  if (process.env["npm_lifecycle_event"]) endWithParent();
  await import("./compile-cache.js");
  process.argv.splice(1, 2, resolve(root, file));
  await import(pathToFileURL(resolve(root, file)).href);
}
