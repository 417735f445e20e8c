/**
 * Runs a TypeScript file of ours, or says in one line why it cannot be run here. In JavaScript, since that is what a
 * Node that cannot understands. Without a file it only looks.
 *
 *     node bin/launch.js bin/start.ts …
 */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const root = resolve(import.meta.dirname ?? new URL(".", import.meta.url).pathname, "..");

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
  await import("./compile-cache.js");
  process.argv.splice(1, 2, resolve(root, file));
  await import(pathToFileURL(resolve(root, file)).href);
}
