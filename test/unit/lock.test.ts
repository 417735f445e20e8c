import { existsSync, readFileSync } from "node:fs";
import { resolve } from "node:path";

interface Entry {
  readonly integrity?: string;
  readonly link?: boolean;
  readonly optional?: boolean;
  readonly dev?: boolean;
}

const ROOT = resolve(import.meta.dirname, "../..");
const { packages } = JSON.parse(readFileSync(resolve(ROOT, "package-lock.json"), "utf8")) as {
  packages: Record<string, Entry>;
};
const named = Object.entries(packages).filter(([path]) => path.startsWith("node_modules/"));

test("every package that is installed has a digest; others only lack it if a registry lacked them, too", () => {
  const without = named.filter(([, { link, integrity }]) => !link && !integrity?.startsWith("sha512-"));
  const wanted = without.filter(([path, { optional }]) => !optional || existsSync(resolve(ROOT, path)));
  expect(wanted.map(([path]) => path)).toEqual([]);
});

test("production has no REPL", () => {
  const production = named.filter(([, { dev }]) => !dev).map(([path]) => path);
  expect(production).toContain("node_modules/moleculer");
  expect(production.filter((path) => /moleculer-repl|inquirer|nodemon/.test(path))).toEqual([]);
});
