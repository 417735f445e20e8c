import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { latestVersion, listVersions, readManifest } from "../../../../lib/models/manifest.ts";
import { mirror, ORIGINS, pull, ZOO } from "../../../../lib/models/zoo.ts";
import { testZoo } from "../../../../testkit/zoo.ts";

const zoo = testZoo();
let folder: string;
let server: Server;
let base: string;
let asked: string[];
/** What stands in for a file. */
let replaced: Record<string, Buffer | number>;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "zoo-"));
  [asked, replaced] = [[], {}];
  server = createServer((request, response) => {
    const name = request.url?.slice("/mirror/".length) ?? "";
    asked.push(name);
    const file = replaced[name] ?? zoo.files[name] ?? 404;
    if (typeof file === "number") response.writeHead(file).end();
    else response.end(file);
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}/mirror`;
});
afterEach(async () => {
  server.closeAllConnections();
  await new Promise((done) => server.close(done));
  rmSync(folder, { recursive: true });
});

const pulled = (options: Partial<Parameters<typeof pull>[0]> = {}) =>
  pull({
    name: "resnet50",
    model: zoo.model,
    modelsDir: folder,
    origins: [mirror(base)],
    download: { tries: 2, retryDelayMs: 1 },
    ...options,
  });

test("a pulled model is a version with the thousand names and the groups of cats and dogs", async () => {
  const dir = await pulled();
  expect(dir).toBe(latestVersion(join(folder, "resnet50")));
  const { inputs, outputs, kind, task, maxBatch } = readManifest(dir);
  expect(inputs).toEqual([{ name: "data", dtype: "float32", shape: [3, 224, 224] }]);
  expect(outputs).toEqual([{ name: "logits", dtype: "float32", shape: [1000] }]);
  expect(kind).toMatchObject({ name: "image", shortSide: 256 });
  expect(maxBatch).toBeGreaterThan(1);
  if (task.name !== "classification") throw new Error("Expected a classifier");
  expect(task.labels).toHaveLength(1000);
  expect(task.labels[134]).toBe("crane (n00000134)");
  expect(task.groups["cat"]).toEqual([281, 282, 283, 284, 285]);
  expect(task.groups["dog"]).toHaveLength(118);
  expect(task.groups["thing 7, also 7"]).toEqual([7]);
});

test("what is there already, whole, is not fetched again; what was damaged is", async () => {
  const dir = await pulled();
  asked.length = 0;
  await pulled();
  expect(asked).toEqual([]);
  writeFileSync(join(dir, "model.onnx"), "damaged");
  await pulled();
  expect(asked).toContain("model.onnx");
});

test("an origin without the file, or with another, is passed over", async () => {
  replaced["model.onnx"] = Buffer.alloc(zoo.model.file.bytes);
  const good = zoo.files["model.onnx"];
  const other = createServer((request, response) => {
    const file = request.url === "/model.onnx" ? good : undefined;
    response.writeHead(file ? 200 : 404).end(file);
  });
  await new Promise<void>((done) => other.listen(0, "127.0.0.1", done));
  try {
    const second = `http://127.0.0.1:${(other.address() as AddressInfo).port}`;
    await pulled({ origins: [mirror(base), mirror(second)] });
  } finally {
    other.closeAllConnections();
    other.close();
  }
  expect(listVersions(join(folder, "resnet50"))).toEqual([1]);
});

test.each([
  ["is missing", 404, "404"],
  ["cannot be read", 500, "500"],
  ["is another", Buffer.alloc(zoo.model.file.bytes), "another file than expected"],
  ["is cut short", zoo.files["model.onnx"]?.subarray(0, 500) ?? 0, "bytes instead of"],
])(
  "if the file %s everywhere there is no version, and each origin's reason is told",
  async (_, file, reason) => {
    replaced["model.onnx"] = file;
    const error = pulled({ origins: [mirror(base), mirror(base)] });
    await expect(error).rejects.toThrow(reason);
    await expect(error).rejects.toThrow("model.onnx cannot be had");
    expect(listVersions(join(folder, "resnet50"))).toEqual([]);
  },
);

test("files that are here already need no origin, but must be the zoo's", async () => {
  const files = Object.fromEntries(
    Object.entries(zoo.files).map(([name, bytes]) => {
      writeFileSync(join(folder, name), bytes);
      return [name, join(folder, name)];
    }),
  );
  await pulled({ files, origins: [] });
  expect(listVersions(join(folder, "resnet50"))).toEqual([1]);
  writeFileSync(join(folder, "model.onnx"), "something else");
  rmSync(join(folder, "resnet50"), { recursive: true });
  await expect(pulled({ files, origins: [] })).rejects.toThrow("another file than the zoo's");
  expect(readdirSync(join(folder, "resnet50", "1"))).not.toContain("model.onnx");
});

test("that what is here already is another file is told before anything is fetched", async () => {
  const file = join(folder, "mine.onnx");
  writeFileSync(file, "something else");
  await expect(pulled({ files: { "model.onnx": file } })).rejects.toThrow("another file than the zoo's");
  expect(asked).toEqual([]);
});

test("the zoo's places are addresses of https", () => {
  for (const { file, classes } of Object.values(ZOO)) {
    for (const origin of ORIGINS) {
      for (const each of [file, classes]) expect(new URL(origin(each)).protocol).toBe("https:");
    }
    expect(file.sha256).toMatch(/^[0-9a-f]{64}$/);
  }
});
