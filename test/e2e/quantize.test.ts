import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import sharp from "sharp";
import { readManifest, verifyFiles } from "../../lib/models/manifest.ts";
import { pull } from "../../lib/models/zoo.ts";
import { testZoo } from "../../testkit/zoo.ts";

const folder = mkdtempSync(join(tmpdir(), "quantize-"));
afterAll(() => rmSync(folder, { recursive: true }));

const run = (...args: string[]) =>
  spawnSync(process.execPath, ["bin/models-quantize.ts", ...args, "--models", folder], {
    cwd: resolve(import.meta.dirname, "../.."),
    encoding: "utf8",
    timeout: 120_000,
  });

test("an int8 version is written beside the float32 one, and the two are compared", async () => {
  const { model, files } = testZoo();
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(folder, name), bytes);
  const local = Object.fromEntries(Object.keys(files).map((name) => [name, join(folder, name)]));
  await pull({ name: "colours", model, modelsDir: folder, origins: [], files: local });
  for (const [label, background] of [
    ["cat", "red"],
    ["dog", "lime"],
  ] as const) {
    mkdirSync(join(folder, "photos", label), { recursive: true });
    for (let i = 0; i < 4; i++) {
      const photo = sharp({ create: { width: 240 + i, height: 230, channels: 3, background } });
      await photo.png().toFile(join(folder, "photos", label, `${i}.png`));
    }
  }

  const { stdout, stderr, status } = run("colours", "--calibrate", join(folder, "photos"));
  expect({ stderr, status }).toEqual({ stderr: "", status: 0 });
  expect(stdout).toMatch(/right of 4 +100\.00 % +100\.00 %/);
  expect(stdout).toContain("Both name the same label for 100.00 % of 4 photos");

  const dir = join(folder, "colours-int8", "1");
  const manifest = readManifest(dir);
  await verifyFiles(manifest, dir);
  expect(manifest).toMatchObject({
    name: "colours-int8",
    inputs: readManifest(join(folder, "colours/1")).inputs,
  });
  expect(manifest.accuracy).toBeUndefined();
}, 180_000);

test.each([
  [[], "Expected a model"],
  [["colours"], "Expected a folder with photos"],
  [["colours", "--calibrate", folder, "--samples", "0"], "Expected a whole number"],
  [["nothing", "--calibrate", folder], "No version of a model"],
])("models:quantize %j is told what is wrong", (args, message) => {
  const { stderr, status } = run(...args);
  expect(stderr).toContain(message);
  expect(status).not.toBe(0);
});
