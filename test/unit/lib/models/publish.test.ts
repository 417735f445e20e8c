import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { listVersions, readManifest, verifyFiles } from "../../../../lib/models/manifest.ts";
import { publish } from "../../../../lib/models/publish.ts";
import { putTimes } from "../../../../testkit/versions.ts";

let folder: string;
let models: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "publish-"));
  models = join(folder, "models");
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

test("a version gets the next number, whole and with an index", async () => {
  const from = putTimes(folder, 7);
  expect(await publish({ from, to: models })).toBe(join(models, "times/1"));
  const second = await publish({ from, to: models });
  expect(listVersions(join(models, "times"))).toEqual([1, 2]);
  await verifyFiles(readManifest(second), second);
  expect(JSON.parse(readFileSync(join(models, "times/index.json"), "utf8"))).toEqual({ versions: [1, 2] });
  expect(readdirSync(join(models, ".incoming"))).toEqual([]);
});

test("a version that is broken, or whose number is taken, is not published", async () => {
  const from = putTimes(folder, 1);
  await publish({ from, to: models, version: 5 });
  await expect(publish({ from, to: models, version: 5 })).rejects.toThrow("already");
  writeFileSync(join(from, "model.onnx"), "x");
  await expect(publish({ from, to: models })).rejects.toThrow("bytes of model.onnx");
  expect(listVersions(join(models, "times"))).toEqual([5]);
  expect(existsSync(join(models, "times/6"))).toBe(false);
});
