import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  latestVersion,
  listVersions,
  ManifestError,
  readManifest,
  verifyFile,
} from "../../../../lib/models/manifest.ts";

const WEIGHTS = "weights";

const valid = {
  name: "pets",
  version: 1,
  format: "onnx",
  file: "model.onnx",
  bytes: WEIGHTS.length,
  sha256: createHash("sha256").update(WEIGHTS).digest("hex"),
  input: {
    tensor: "pixels",
    dtype: "uint8",
    layout: "NHWC",
    width: 144,
    height: 144,
    channels: 3,
    normalisation: "in-graph",
  },
  output: { tensor: "logits", activation: "softmax" },
  labels: ["cat", "dog", "other"],
  groups: { cat: [0], dog: [1] },
  licence: "MIT",
  source: "training/",
  accuracy: { all: 0.94 },
};

const imagenet = {
  ...valid.input,
  dtype: "float32",
  layout: "NCHW",
  shortSide: 256,
  normalisation: { mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375] },
};

let models: string;

beforeEach(() => {
  models = mkdtempSync(join(tmpdir(), "manifest-"));
});

afterEach(() => rmSync(models, { recursive: true, force: true }));

/** Writes one version and returns its folder. */
function write(manifest: unknown, { name = "pets", version = "1", weights = WEIGHTS } = {}): string {
  const dir = join(models, name, version);
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, "model.onnx"), weights);
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
    expect(readManifest(write({ ...valid, input: imagenet })).input).toEqual(imagenet);
  });

  test.each<[string, object, string]>([
    ["a version that is no whole number", { version: 1.5 }, "for version"],
    ["another version than its folder's", { version: 2 }, "Expected 1 for version"],
    ["another name than its folder's", { name: "dogs" }, "Expected pets for name"],
    ["a file in another folder", { file: "../../secret" }, "for file"],
    ["an absolute file", { file: "/etc/passwd" }, "for file"],
    ["a file in a folder below", { file: "weights/model.onnx" }, "for file"],
    ["a file that is the folder itself", { file: "." }, "for file"],
    ["the manifest as weights", { file: "manifest.json" }, "for file"],
    ["a format that is a path", { format: "../onnx" }, "for format"],
    ["a short digest", { sha256: "abc" }, "for sha256"],
    ["an unknown type of element", { input: { ...valid.input, dtype: "int8" } }, "for input.dtype"],
    ["a frame without width", { input: { ...valid.input, width: 0 } }, "for input.width"],
    ["no input at all", { input: undefined }, "for input.tensor"],
    ["an input that is a list", { input: [] }, "for input.tensor"],
    ["float pixels normalised in the graph", { input: { ...valid.input, dtype: "float32" } }, "mean and std"],
    ["bytes normalised by the engine", { input: { ...imagenet, dtype: "uint8" } }, `"in-graph" with uint8`],
    ["bytes in planes", { input: { ...valid.input, layout: "NCHW" } }, "for input.layout"],
    ["float channels side by side", { input: { ...imagenet, layout: "NHWC" } }, "for input.layout"],
    [
      "a standard deviation of zero",
      { input: { ...imagenet, normalisation: { mean: [0, 0, 0], std: [1, 0, 1] } } },
      "for input.normalisation",
    ],
    ["a short side that leaves a border", { input: { ...valid.input, shortSide: 143 } }, "at least 144"],
    ["an activation nobody applies", { output: { tensor: "x", activation: "sigmoid" } }, "output.activation"],
    ["the same label twice", { labels: ["cat", "cat", "dog"] }, "for labels"],
    ["no group", { groups: {} }, "for groups"],
    ["a group of labels that do not exist", { groups: { cat: [3] } }, "for groups.cat"],
    ["an empty group", { groups: { cat: [] } }, "for groups.cat"],
    ["a group that is no list", { groups: { cat: "0" } }, "for groups.cat"],
    ["percent for accuracy", { accuracy: { all: 94 } }, "for accuracy"],
    ["no licence", { licence: " " }, "for licence"],
  ])("refuses %s", (_, change, message) => {
    const dir = write({ ...valid, ...change });
    expect(() => readManifest(dir)).toThrow(ManifestError);
    expect(() => readManifest(dir)).toThrow(message);
  });

  test("names every problem at once", () => {
    const dir = write({});
    const problems = [...Object.keys(valid), "input.dtype", "output.activation"].filter(
      (name) => !["input", "output", "accuracy"].includes(name),
    );
    for (const name of problems)
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

describe("verifyFile", () => {
  const manifest = () => readManifest(join(models, "pets", "1"));

  test("accepts the weights of the manifest", async () => {
    const dir = write(valid);
    await expect(verifyFile(manifest(), dir)).resolves.toBeUndefined();
  });

  test("refuses weights of another size", async () => {
    const dir = write(valid, { weights: "weight" });
    await expect(verifyFile(manifest(), dir)).rejects.toThrow("Expected 7 for bytes but received 6");
  });

  test("refuses other weights of the same size", async () => {
    const dir = write(valid, { weights: "Weights" });
    await expect(verifyFile(manifest(), dir)).rejects.toThrow("for sha256");
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
    expect(listVersions(join(models, "pets"))).toEqual([1]);
  });

  test("of an unknown model are none", () => {
    expect(listVersions(join(models, "unknown"))).toEqual([]);
    expect(() => latestVersion(join(models, "unknown"))).toThrow("No version of a model in");
  });

  test("that cannot be used are explained when there is no other", () => {
    write({ ...valid, file: "../model.onnx" });
    expect(() => latestVersion(join(models, "pets"))).toThrow("for file");
  });
});
