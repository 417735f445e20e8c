import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { z } from "zod";
import { type ImagePart, image } from "../../../../lib/kinds/image/kind.ts";
import {
  identityOf,
  latestVersion,
  listVersions,
  MANIFEST,
  ManifestError,
  readManifest,
  verifyFiles,
} from "../../../../lib/models/manifest.ts";

const WEIGHTS = "weights";
const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
const file = (path: string, content: string) => ({
  path,
  bytes: content.length,
  sha256: sha256(content),
});

const valid = {
  manifest: 2,
  name: "pets",
  version: 1,
  format: "onnx",
  files: [file("model.onnx", WEIGHTS)],
  inputs: [{ name: "pixels", dtype: "uint8", shape: [144, 144, 3] }],
  outputs: [{ name: "logits", dtype: "float32", shape: [3] }],
  maxBatch: 64,
  kind: { name: "image" },
  task: {
    name: "classification",
    output: "logits",
    activation: "softmax",
    labels: ["cat", "dog", "other"],
    groups: { cat: [0], dog: [1] },
  },
  licence: "MIT",
  source: "training/",
  accuracy: { all: 0.94 },
};

const imagenet = {
  inputs: [{ name: "data", dtype: "float32", shape: [3, 224, 224] }],
  kind: {
    name: "image",
    shortSide: 256,
    normalisation: { mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375] },
  },
};

const kind = (change: object) => ({ kind: { ...valid.kind, ...change } });
const task = (change: object) => ({ task: { ...valid.task, ...change } });
const pixels = (change: object) => ({ inputs: [{ ...valid.inputs[0], ...change }] });
const example = (data: unknown) => ({
  golden: [
    {
      inputs: { pixels: { dtype: "uint8", shape: [1], data } },
      outputs: { logits: { dtype: "float32", shape: [3], data: [1, 2, 3] } },
      tolerance: 0.05,
    },
  ],
});

let models: string;

beforeEach(() => {
  models = mkdtempSync(join(tmpdir(), "manifest-"));
});

afterEach(() => rmSync(models, { recursive: true, force: true }));

/** Writes one version and returns its folder. */
function write(
  manifest: unknown,
  { name = "pets", version = "1", weights = WEIGHTS, files = {} as Record<string, string> } = {},
): string {
  const dir = join(models, name, version);
  for (const [path, content] of Object.entries({ "model.onnx": weights, ...files })) {
    mkdirSync(dirname(join(dir, path)), { recursive: true });
    writeFileSync(join(dir, path), content);
  }
  writeFileSync(
    join(dir, "manifest.json"),
    typeof manifest === "string" ? manifest : JSON.stringify(manifest),
  );
  return dir;
}

describe("readManifest", () => {
  test("returns what the file says", () => {
    expect(readManifest(write(valid))).toEqual(valid);
  });

  test("takes a float model that wants its pixels normalised", () => {
    expect(readManifest(write({ ...valid, ...imagenet }))).toMatchObject(imagenet);
  });

  test("takes float pixels with their channels last, as TensorFlow's are", () => {
    const inputs = [{ name: "data", dtype: "float32" as const, shape: [32, 48, 3] }];
    const manifest = readManifest(
      write({ ...valid, ...imagenet, inputs, ...kind({ ...imagenet.kind, shortSide: 64 }) }),
    );
    expect(image.wants(manifest.kind as ImagePart, manifest.inputs)).toMatchObject({ width: 48, height: 32 });
    expect(image.feeds?.(manifest.kind as ImagePart, manifest.inputs)).toMatchObject({
      inputs: [{ name: "data", dtype: "uint8", shape: [32, 48, 3] }],
      planes: { data: { interleaved: true } },
    });
  });

  test("takes a model that another server computes, without files", () => {
    const remote = { protocol: "open-inference", url: "http://triton:8000", model: "pets" };
    const elsewhere = { format: "remote", files: [], remote };
    expect(readManifest(write({ ...valid, ...elsewhere }))).toMatchObject(elsewhere);
  });

  test.each([
    ["no server", { format: "remote", files: [] }, "a server for remote"],
    [
      "a server, and files to load",
      { remote: { protocol: "open-inference", model: "pets" } },
      "nothing, with another format than remote, for remote",
    ],
    [
      "a password in its address",
      {
        format: "remote",
        files: [],
        remote: { protocol: "open-inference", model: "a", url: "http://u:p@h" },
      },
      "without user and password for remote.url",
    ],
  ])("refuses a remote model with %s", (_, change, message) => {
    expect(() => readManifest(write({ ...valid, ...change }))).toThrow(message);
  });

  test("takes a golden example, its values inside or in a file", () => {
    expect(readManifest(write({ ...valid, ...example([7]) }))).toMatchObject(example([7]));
    const files = [...valid.files, file("golden/pixels.bin", "x")];
    expect(() =>
      readManifest(write({ ...valid, files, ...example({ file: "golden/pixels.bin" }) })),
    ).not.toThrow();
  });

  test.each<[string, object, string]>([
    ["a version that is no whole number", { version: 1.5 }, "for version"],
    ["another version than its folder's", { version: 2 }, "Expected 1 for version"],
    ["another name than its folder's", { name: "dogs" }, "Expected pets for name"],
    ["the first format of manifests", { manifest: 1 }, "Expected 2 for manifest but received 1"],
    ["a file in another folder", { files: [file("../../secret", "")] }, "for files.0.path"],
    ["an absolute file", { files: [file("/etc/passwd", "")] }, "for files.0.path"],
    ["a file that is the folder itself", { files: [file(".", "")] }, "for files.0.path"],
    ["the manifest as a file", { files: [file("manifest.json", "")] }, "for files.0.path"],
    ["the same file twice", { files: [valid.files[0], valid.files[0]] }, "different files for files"],
    ["no file", { files: [] }, "at least 1 entries for files"],
    ["a format that is a path", { format: "../onnx" }, "for format"],
    ["a short digest", { files: [{ ...valid.files[0], sha256: "abc" }] }, "for files.0.sha256"],
    ["an unknown type of element", pixels({ dtype: "int8" }), "for inputs.0.dtype"],
    ["a frame without width", pixels({ shape: [144, 0, 3] }), "for inputs.0.shape.1"],
    ["a frame of any width", pixels({ shape: [144, null, 3] }), "[height, width, 3] with uint8"],
    ["a grey frame", pixels({ shape: [144, 144, 1] }), "[height, width, 3] with uint8"],
    ["images as text", pixels({ dtype: "string", shape: [] }), `"uint8" or "float32" for inputs.0.dtype`],
    [
      "two inputs for one image",
      { inputs: [valid.inputs[0], { ...valid.inputs[0], name: "x" }] },
      "one input",
    ],
    ["no input at all", { inputs: undefined }, "Expected a list for inputs but received undefined"],
    ["a batch of nothing", { maxBatch: 0 }, "for maxBatch"],
    ["float pixels that nobody normalises", { inputs: imagenet.inputs }, "mean and std with float32"],
    ["bytes normalised by the engine", { kind: imagenet.kind }, "nothing with uint8"],
    [
      "a standard deviation of zero",
      { ...imagenet, ...kind({ normalisation: { mean: [0, 0, 0], std: [1, 0, 1] } }) },
      "without a zero for kind.normalisation.std",
    ],
    ["a short side that leaves a border", kind({ shortSide: 143 }), "at least 144"],
    ["an unknown kind", { kind: { name: "sound" } }, "for kind.name"],
    ["an unknown task", task({ name: "poetry" }), "for task.name"],
    ["an activation nobody applies", task({ activation: "sigmoid" }), "for task.activation"],
    ["an output that there is not", task({ output: "probabilities" }), `Expected "logits" for task.output`],
    [
      "an output of another size",
      { outputs: [{ name: "logits", dtype: "float32", shape: [4] }] },
      "float32 [3]",
    ],
    ["the same label twice", task({ labels: ["cat", "cat", "dog"] }), "for task.labels"],
    ["no group", task({ groups: {} }), "for task.groups"],
    ["a group of labels that do not exist", task({ groups: { cat: [3] } }), "for task.groups.cat"],
    ["an empty group", task({ groups: { cat: [] } }), "for task.groups.cat"],
    ["a group that is no list", task({ groups: { cat: "0" } }), "for task.groups.cat"],
    [
      "a golden file that is not among its files",
      example({ file: "golden/x.bin" }),
      "one of files for golden",
    ],
    ["percent for accuracy", { accuracy: { all: 94 } }, "a share from 0 to 1 for accuracy.all"],
    ["no licence", { licence: " " }, "for licence"],
    ["an unknown key", { license: "MIT" }, `Unknown key "license": did you mean "licence"?`],
    [
      "an unknown key of a file",
      { files: [{ ...valid.files[0], sha265: "" }] },
      `in files.0: did you mean "sha256"`,
    ],
    [
      "an unknown key of its kind",
      kind({ shortside: 256 }),
      `"shortside" in kind: did you mean "shortSide"?`,
    ],
    [
      "an unknown key of its task",
      task({ group: {} }),
      `Unknown key "group" in task: did you mean "groups"?`,
    ],
    [
      "a key of another kind",
      kind({ labels: [] }),
      `"labels" in kind: it has name, shortSide, normalisation`,
    ],
  ])("refuses %s", (_, change, message) => {
    const dir = write({ ...valid, ...change });
    expect(() => readManifest(dir)).toThrow(ManifestError);
    expect(() => readManifest(dir)).toThrow(message);
  });

  test("names every problem at once", () => {
    const dir = write({});
    const required = Object.keys(valid).filter((name) => name !== "accuracy");
    for (const name of required)
      expect(() => readManifest(dir)).toThrow(`for ${name} but received undefined`);
  });

  test.each([
    ["no JSON", "{"],
    ["no object", "[]"],
  ])("refuses a file that is %s", (_, content) => {
    expect(() => readManifest(write(content))).toThrow(ManifestError);
  });

  test("refuses a folder without a manifest", () => {
    expect(() => readManifest(join(models, "pets", "1"))).toThrow(ManifestError);
  });
});

describe("the JSON Schema beside the models", () => {
  test("is made of the same declaration, and what ships keeps to it", () => {
    const written = JSON.parse(readFileSync(resolve("models/manifest.schema.json"), "utf8")) as unknown;
    expect(written).toEqual(JSON.parse(JSON.stringify(z.toJSONSchema(MANIFEST))));
    expect(readManifest("models/pets-resnet/1").$schema).toBe("../../manifest.schema.json");
  });
});

describe("the fingerprint", () => {
  const fingerprint = (manifest: unknown) => identityOf(readManifest(write(manifest))).fingerprint;

  test("does not depend on the order of keys or the schema that editors use", () => {
    const turned = Object.fromEntries(Object.entries({ ...valid, $schema: "x" }).reverse());
    expect(fingerprint(turned)).toBe(fingerprint(valid));
    expect(fingerprint(valid)).toMatch(/^[0-9a-f]{64}$/);
  });

  test.each<[string, object]>([
    ["the files", { files: [file("model.onnx", "Weights")] }],
    ["a group", task({ groups: { cat: [0], dog: [2] } })],
    ["how images are cut", kind({ shortSide: 160 })],
  ])("changes with %s", (_, change) => {
    expect(fingerprint({ ...valid, ...change })).not.toBe(fingerprint(valid));
  });
});

describe("verifyFiles", () => {
  const files = [...valid.files, file("parts/more.bin", "more")];
  const verify = async (content: Record<string, string>) => {
    const dir = write({ ...valid, files }, { files: { "parts/more.bin": "more", ...content } });
    await verifyFiles(readManifest(dir), dir);
  };

  test("accepts the files of the manifest", async () => {
    await expect(verify({})).resolves.toBeUndefined();
  });

  test("refuses a file of another size, and names it", async () => {
    await expect(verify({ "model.onnx": "weight" })).rejects.toThrow(
      "Expected 7 for bytes of model.onnx but received 6",
    );
  });

  test("refuses another file of the same size", async () => {
    await expect(verify({ "parts/more.bin": "More" })).rejects.toThrow("for sha256 of parts/more.bin");
  });
});

describe("versions", () => {
  test("are listed in numerical order and the highest is the latest", () => {
    for (const version of [10, 9, 1]) write({ ...valid, version }, { version: String(version) });
    expect(listVersions(join(models, "pets"))).toEqual([1, 9, 10]);
    expect(latestVersion(join(models, "pets"))).toBe(join(models, "pets", "10"));
  });

  test("do not exist without a complete, matching manifest", () => {
    write(valid);
    write({ ...valid, version: 3 }, { version: "2" });
    write({ ...valid, version: 4 }, { version: "4", weights: "half" });
    write("{", { version: "5" });
    mkdirSync(join(models, "pets", "6"));
    write({ ...valid, version: 7 }, { version: "07" });
    write({ ...valid, version: 8 }, { version: "8.tmp" });
    write({ ...valid, version: 9, files: [...valid.files, file("lost.bin", "x")] }, { version: "9" });
    expect(listVersions(join(models, "pets"))).toEqual([1]);
  });

  test("of an unknown model are none", () => {
    expect(listVersions(join(models, "unknown"))).toEqual([]);
    expect(() => latestVersion(join(models, "unknown"))).toThrow("No version of a model in");
  });

  test("that cannot be used are explained when there is no other", () => {
    write({ ...valid, maxBatch: "many" });
    expect(() => latestVersion(join(models, "pets"))).toThrow("for maxBatch");
  });
});
