import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const ROOT = resolve(import.meta.dirname, "../..");
const url = (path: string) => JSON.stringify(pathToFileURL(join(ROOT, path)).href);

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "services-"));
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A service file as a team would write it, with its mistake. */
function write(file: string, { name = file, settings }: { name?: string; settings: object }): void {
  writeFileSync(
    join(folder, `${file}.service.ts`),
    `import { defineService } from ${url("lib/define.ts")};
     import { ImageClassifier } from ${url("mixins/image-classifier.mixin.ts")};
     export default defineService()(${JSON.stringify({ name, settings }).replace("{", "{ mixins: [ImageClassifier], ")});`,
  );
}

/** What the server says before it gives up. */
function failure(env: Record<string, string> = {}): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, ["bin/start.ts"], {
    cwd: ROOT,
    env: { PATH: process.env["PATH"], PORT: "0", SERVICES_DIRS: folder, ...env },
    encoding: "utf8",
    timeout: 60_000,
  });
  expect(status).toBe(1);
  return stdout + stderr;
}

const right = { model: "pets-resnet", group: "cat", question: "Is it a cat?" };

describe("a server does not start", () => {
  test("with a setting that is misspelt: it names file, setting and the nearest", () => {
    write("mine", { settings: { ...right, treshold: 0.9 } });
    const text = failure();
    expect(text).toContain(join(folder, "mine.service.ts"));
    expect(text).toContain(`Unknown key "treshold" in settings: did you mean "threshold"?`);
    expect(text).not.toMatch(/\n\s+at /);
  });

  test("with a copied file that kept the name: a mushroom would be told that it is a cat", () => {
    write("mushroom", { name: "resnet-cat", settings: right });
    expect(failure()).toContain(`Expected "mushroom", as the file, for name but received "resnet-cat"`);
  });

  test("with two services of one name in its folders", () => {
    write("resnet-cat", { settings: right });
    const text = failure({ SERVICES_DIRS: `services,${folder}` });
    expect(text).toContain(`Two services are called "resnet-cat"`);
    expect(text).toContain(join(folder, "resnet-cat.service.ts"));
  });

  test("with a group that the model does not have: it names those there are", () => {
    write("mine", { settings: { ...right, group: "cats" } });
    const text = failure();
    expect(text).toContain(join(folder, "mine.service.ts"));
    expect(text).toContain(`Expected group to be one of cat, dog but received "cats": did you mean "cat"?`);
  });

  test("with a model that there is not: it names the nearest", () => {
    write("mine", { settings: { ...right, model: "pet-resnet" } });
    expect(failure()).toContain(`did you mean "pets-resnet"?`);
  });

  test("with a model that gets its golden example wrong", () => {
    write("mine", { settings: right });
    const models = join(folder, "models");
    mkdirSync(models);
    cpSync(join(ROOT, "models/pets-resnet"), join(models, "pets-resnet"), { recursive: true });
    const path = join(models, "pets-resnet/1/manifest.json");
    const manifest = JSON.parse(readFileSync(path, "utf8").replace("-3.144", "3.144")) as object;
    writeFileSync(path, JSON.stringify(manifest));
    expect(failure({ MODELS_DIR: models })).toMatch(
      /pets-resnet\/1 does not make of its golden example 0 what it should: "logits" has -3\.\d+ at 0, the example 3\.144/,
    );
  });
});
