import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import sharp from "sharp";
import { pull } from "../../lib/models/zoo.ts";
import { startServer } from "../../testkit/server.ts";
import { testZoo } from "../../testkit/zoo.ts";

const folder = mkdtempSync(join(tmpdir(), "pull-"));
afterAll(() => rmSync(folder, { recursive: true }));

test("MODEL names the pulled model that resnet-cat and resnet-dog ask", async () => {
  const { model, files } = testZoo();
  const local = Object.entries(files).map(([name, bytes]) => {
    const path = join(folder, name);
    writeFileSync(path, bytes);
    return [name, path];
  });
  await pull({
    name: "resnet50",
    model,
    modelsDir: folder,
    origins: [],
    files: Object.fromEntries(local),
  });
  const server = await startServer({
    MODELS_DIR: folder,
    MODEL: "resnet50",
    SERVICES: "gateway,dispatcher,resnet-cat,resnet-dog",
  });
  try {
    const photo = await sharp({ create: { width: 300, height: 260, channels: 3, background: "red" } })
      .jpeg()
      .toBuffer();
    const response = await fetch(`${server.url}/api/classify`, {
      method: "POST",
      headers: { "content-type": "image/jpeg" },
      body: photo,
    });
    const { results } = (await response.json()) as {
      results: Record<string, { answer: boolean; labels: { label: string }[] }>;
    };
    expect(results["resnet-cat"]).toMatchObject({ answer: true, model: { name: "resnet50", version: 1 } });
    expect(results["resnet-dog"]?.answer).toBe(false);
    expect(results["resnet-cat"]?.labels).toHaveLength(5);
    expect(results["resnet-cat"]?.labels[0]?.label).toBe("thing 281, also 281");
  } finally {
    await server.stop();
  }
}, 90_000);

test.each([
  [["resnet51"], "Expected one of resnet50"],
  [["resnet-50"], 'did you mean "resnet50"?'],
  [["resnet50", "--from", "ftp://example.org"], "Expected a URL of http or https"],
  [["resnet50", "--frm", "x"], "--frm"],
  [["resnet50", "--file", "/no/such/file", "--labels", "/none"], "no such file"],
])("models:pull %j is told in one line what is wrong", (args, message) => {
  const { stderr, status } = spawnSync(
    process.execPath,
    ["bin/models-pull.ts", ...args, "--models", folder],
    {
      cwd: resolve(import.meta.dirname, "../.."),
      encoding: "utf8",
      timeout: 30_000,
    },
  );
  expect(stderr).toContain(message);
  expect(stderr.trim().split("\n")).toHaveLength(1);
  expect(status).not.toBe(0);
});
