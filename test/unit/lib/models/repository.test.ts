import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FolderRepository } from "../../../../lib/models/repository.ts";

let folder: string;
let dir: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "repository-"));
  dir = join(folder, "times");
  mkdirSync(dir);
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

function put(version: number, change: (manifest: string) => string = (manifest) => manifest): void {
  const to = join(dir, String(version));
  cpSync("test/fixtures/models/times/1", to, { recursive: true });
  const path = join(to, "manifest.json");
  const manifest = readFileSync(path, "utf8").replace('"version": 1', `"version": ${version}`);
  writeFileSync(path, change(manifest));
}

const versions = async (repository: FolderRepository) =>
  (await repository.list()).found.map(({ version }) => version);

describe("a folder of versions", () => {
  test("lists those that are complete, by number, and says what is wrong with the others", async () => {
    for (const version of [10, 9, 1]) put(version);
    put(11, () => "{");
    put(12);
    writeFileSync(join(dir, "12/model.onnx"), "half");
    mkdirSync(join(dir, "13"));
    const { found, problems } = await new FolderRepository(dir).list();
    expect(found.map(({ version }) => version)).toEqual([1, 9, 10]);
    expect(problems).toEqual([
      { version: 11, reason: expect.stringContaining("manifest") },
      { version: 12, reason: expect.stringContaining("Expected 112 for bytes of model.onnx but received 4") },
      { version: 13, reason: expect.stringContaining("ENOENT") },
    ]);
  });

  test.each(["../2", "2 ", "２", "02", "2.tmp", ".incoming-2", "-2", "2e3", "99999999999999999999"])(
    "takes no folder called %j for a version",
    async (name) => {
      put(1);
      cpSync(join(dir, "1"), join(dir, name), { recursive: true });
      expect((await new FolderRepository(dir).list()).found.map(({ version }) => version)).toEqual([1]);
    },
  );

  test("is read anew where something changed: a version that was being copied is there when it is whole", async () => {
    put(1);
    const repository = new FolderRepository(dir);
    put(2, () => "{");
    expect(await versions(repository)).toEqual([1]);
    rmSync(join(dir, "2"), { recursive: true });
    put(2);
    expect(await versions(repository)).toEqual([1, 2]);
    rmSync(join(dir, "1"), { recursive: true });
    expect(await versions(repository)).toEqual([2]);
  });

  test("stamps a version by what lies on disk", async () => {
    put(1);
    const repository = new FolderRepository(dir);
    const before = (await repository.list()).found[0];
    expect((await repository.list()).found[0]?.stamp).toBe(before?.stamp);
    writeFileSync(join(dir, "1/model.onnx"), "x".repeat(112));
    const after = (await repository.list()).found[0];
    expect(after?.stamp).not.toBe(before?.stamp);
    expect(after?.fingerprint).toBe(before?.fingerprint);
  });

  test("of a model that there is not is empty", async () => {
    expect(await new FolderRepository(join(folder, "other")).list()).toEqual({ found: [], problems: [] });
  });

  test("holds two hundred versions", async () => {
    for (let version = 1; version <= 200; version++) put(version);
    const { found, problems } = await new FolderRepository(dir).list();
    expect([found.length, problems]).toEqual([200, []]);
  });
});
