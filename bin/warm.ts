/**
 * For the image's build: starts a server as it will be started, with one model, and ends it. What Node strips of types
 * and compiles for that it keeps (compile-cache.js), for every start from the image, also with a read-only root. It keeps
 * it by user: whoever runs this runs the server.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const ROOT = resolve(import.meta.dirname, "..");
const url = (path: string) => JSON.stringify(pathToFileURL(join(ROOT, path)).href);

// Not one of the image's own: their files change most often, and come after this.
const folder = mkdtempSync(join(tmpdir(), "warm-"));
writeFileSync(
  join(folder, "warm.service.ts"),
  `import { defineService } from ${url("lib/define.ts")};
   import { env } from ${url("lib/env.ts")};
   import { ImageClassifier } from ${url("mixins/image-classifier.mixin.ts")};
   export default defineService()({
     name: "warm",
     mixins: [ImageClassifier],
     settings: { model: env.MODEL, group: "cat", question: "Is it a cat?" },
   });`,
);
const server = spawn(process.execPath, ["bin/start.ts", folder], {
  cwd: ROOT,
  env: { ...process.env, PORT: "0", HOST: "127.0.0.1", ADMIN_PORT: "0" },
  stdio: ["ignore", "pipe", "inherit"],
});
createInterface({ input: server.stdout }).on("line", (line) => {
  if (line.includes("Serving on")) server.kill("SIGTERM");
});
const [code] = (await once(server, "exit")) as [number | null];
rmSync(folder, { recursive: true });
process.exitCode = code ?? 1;
