import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, relative, resolve } from "node:path";

const ROOT = resolve(import.meta.dirname, "../..");
/** From the top down: what may import all that stands behind it. */
const LAYERS = [
  "bin",
  "moleculer.config.ts",
  "services",
  "mixins",
  "middlewares",
  "strategies",
  "transporters",
  "lib",
];
const IMPORT = /(?:\bfrom|\bimport)\s*\(?\s*"(\.[^"]+\.(?:ts|js))"/g;

function filesOf(layer: string): string[] {
  if (layer.endsWith(".ts")) return [layer];
  const entries = readdirSync(resolve(ROOT, layer), { recursive: true, encoding: "utf8" });
  return entries.filter((entry) => entry.endsWith(".ts")).map((entry) => `${layer}/${entry}`);
}

/** What a file imports, types and what it imports late included. */
function importsOf(file: string): string[] {
  const text = readFileSync(resolve(ROOT, file), "utf8").replace(/^\s*(\/\/|\/?\*).*$/gm, "");
  return [...text.matchAll(IMPORT)].map(([, path = ""]) =>
    relative(ROOT, resolve(ROOT, dirname(file), path)).replaceAll("\\", "/"),
  );
}

const graph = new Map(LAYERS.flatMap(filesOf).map((file) => [file, importsOf(file)]));

/** The first circle on a way that starts here. */
function circle(file: string, way: readonly string[], done: Set<string>): readonly string[] | undefined {
  const at = way.indexOf(file);
  if (at >= 0) return [...way.slice(at), file];
  if (done.has(file)) return undefined;
  for (const next of graph.get(file) ?? []) {
    const found = circle(next, [...way, file], done);
    if (found) return found;
  }
  done.add(file);
  return undefined;
}

test("every import names a file", () => {
  expect(graph.size).toBeGreaterThan(100);
  const missing = [...graph.values()].flat().filter((file) => !existsSync(resolve(ROOT, file)));
  expect(missing).toEqual([]);
});

test("no file imports, by whatever way, itself", () => {
  const done = new Set<string>();
  for (const file of graph.keys()) expect(circle(file, [], done)).toBeUndefined();
});

test("lib imports nothing but lib", () => {
  const up = [...graph].flatMap(([file, imports]) =>
    file.startsWith("lib/")
      ? imports.filter((path) => !path.startsWith("lib/")).map((path) => [file, path])
      : [],
  );
  expect(up).toEqual([]);
});
