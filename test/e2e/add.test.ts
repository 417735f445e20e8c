import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import sharp from "sharp";
import { readManifest, verifyFiles } from "../../lib/models/manifest.ts";
import { TYPE } from "../../lib/onnx/proto.ts";
import { http } from "../../testkit/http.ts";
import { type ColourShape, colourModel } from "../../testkit/onnx.ts";
import { startServer } from "../../testkit/server.ts";

const folder = mkdtempSync(join(tmpdir(), "add-"));
const [models, services] = [join(folder, "models"), join(folder, "services")];
afterAll(() => rmSync(folder, { recursive: true }));

const LABELS = "cat,dog,bird";

/** A file with a classifier of colours. */
function colours(name: string, shape: ColourShape = {}): string {
  const file = join(folder, `${name}.onnx`);
  writeFileSync(file, colourModel(shape));
  return file;
}

const run = (...args: string[]) =>
  spawnSync(process.execPath, ["bin/models-add.ts", ...args, "--models", models, "--services", services], {
    cwd: resolve(import.meta.dirname, "../.."),
    encoding: "utf8",
    timeout: 60_000,
  });

const photo = (background: string) =>
  sharp({ create: { width: 60, height: 40, channels: 3, background } })
    .png()
    .toBuffer();

test("added classifiers of every shape answer, as soon as the server starts with them", async () => {
  const added: [name: string, shape: ColourShape, options: string[], note: string][] = [
    ["planes", {}, [], "Layout NCHW"],
    ["pixels", { layout: "nhwc" }, ["--normalise", "minus1to1"], "a Transpose was put before it"],
    ["bytes", { layout: "nhwc", type: TYPE.uint8 }, [], "Layout NHWC"],
    ["byte-planes", { type: TYPE.uint8 }, [], "a Transpose was put before it"],
    ["any-size", { side: "side" }, ["--size", "48", "--short-side", "64"], "Layout NCHW"],
    ["shares", { probabilities: true }, [], "It gives probabilities"],
    ["single", { batch: 1 }, [], "It gives logits"],
    ["secretly-single", { onlyOne: true }, [], "batches of 1"],
  ];
  for (const [name, shape, options, note] of added) {
    const { stdout, stderr, status } = run(
      colours(name, shape),
      "--labels",
      LABELS,
      "--group",
      "cat",
      ...options,
    );
    expect({ name, stderr, status }).toEqual({ name, stderr: "", status: 0 });
    expect(stdout).toContain(note);
    expect(stdout).toContain(`curl -F image=@photo.jpg 'localhost:3000/api/classify?models=${name}-cat'`);
    const manifest = readManifest(join(models, name, "1"));
    await verifyFiles(manifest, join(models, name, "1"));
  }
  const of = (name: string) => readManifest(join(models, name, "1"));
  expect(of("any-size")).toMatchObject({ inputs: [{ shape: [3, 48, 48] }], kind: { shortSide: 64 } });
  expect(of("shares").task).toMatchObject({ activation: "none" });
  expect([of("planes"), of("single"), of("secretly-single")].map(({ maxBatch }) => maxBatch)).toEqual([
    64, 1, 1,
  ]);

  const names = added.map(([name]) => `${name}-cat`);
  const server = await startServer({ SERVICES: ["gateway", "dispatcher", ...names].join(",") }, [services]);
  try {
    const ask = async (colour: string) => {
      const reply = await http(`${server.url}/api/classify?models=${names.join(",")}`, {
        headers: { "content-type": "image/png" },
        body: await photo(colour),
      });
      const { results } = reply.json();
      return names.map((name) => [name, results[name].answer, results[name].labels?.[0]?.label]);
    };
    expect(await ask("red")).toEqual(names.map((name) => [name, true, "cat"]));
    expect(await ask("lime")).toEqual(names.map((name) => [name, false, "dog"]));
  } finally {
    await server.stop();
  }
}, 180_000);

test("labels come from a file, and several groups of a model are several services", () => {
  const labels = join(folder, "labels.txt");
  writeFileSync(labels, "cat\r\ndog\r\nbird\r\n\r\n");
  const file = colours("animals");
  const { stderr, status } = run(file, "--labels", labels, "--group", "pet=cat,dog", "--group", "bird");
  expect({ stderr, status }).toEqual({ stderr: "", status: 0 });
  expect(readManifest(join(models, "animals/1")).task).toMatchObject({
    labels: ["cat", "dog", "bird"],
    groups: { pet: [0, 1], bird: [2] },
  });
  expect(readFileSync(join(services, "animals-pet.service.ts"), "utf8")).toContain(
    'question: "Is it a pet?"',
  );
  expect(existsSync(join(services, "animals-bird.service.ts"))).toBe(true);

  // A further question to the same graph leaves the model as it is.
  const before = readFileSync(join(models, "animals/1/manifest.json"), "utf8");
  expect(run(file, "--labels", labels, "--group", "dog", "--name", "is-dog").status).toBe(0);
  expect(readFileSync(join(models, "animals/1/manifest.json"), "utf8")).toBe(before);
}, 60_000);

test("nothing that is there is replaced, unless by force", () => {
  const file = colours("kept");
  expect(run(file, "--labels", LABELS, "--group", "cat").status).toBe(0);
  const service = run(file, "--labels", LABELS, "--group", "cat");
  expect(service).toMatchObject({
    status: 2,
    stderr: expect.stringContaining('There is a service "kept-cat"'),
  });
  const other = run(colours("kept", { weight: 5 }), "--labels", LABELS, "--group", "dog");
  expect(other).toMatchObject({ status: 1, stderr: expect.stringContaining("is there already") });
  expect(existsSync(join(services, "kept-dog.service.ts"))).toBe(false);
  const sha256 = () => readManifest(join(models, "kept/1")).files[0]?.sha256;
  const before = sha256();
  expect(run(file, "--labels", LABELS, "--group", "cat", "--force").status).toBe(0);
  expect(sha256()).not.toBe(before);
  expect(readdirSync(join(models, "kept"))).toEqual(["1"]);
}, 60_000);

const GOOD = ["--labels", LABELS, "--group", "cat"];

test.each<[string, () => string[], string]>([
  ["no file", () => [], "Expected an ONNX file"],
  ["a missing file", () => [join(folder, "no.onnx"), ...GOOD], "There is no"],
  ["no labels", () => [colours("bad"), "--group", "cat"], "Expected --labels"],
  ["no group", () => [colours("bad"), "--labels", LABELS], "Expected --group"],
  [
    "a missing file of labels",
    () => [colours("bad"), "--labels", "no.txt", "--group", "cat"],
    "There is no file no.txt",
  ],
  [
    "a label twice",
    () => [colours("bad"), "--labels", "cat,cat,dog", "--group", "cat"],
    '"cat" is there twice',
  ],
  ["too few labels", () => [colours("bad"), "--labels", "cat,dog", "--group", "cat"], "gives 3 numbers"],
  [
    "an unknown label",
    () => [colours("bad"), "--labels", LABELS, "--group", "pet=cat,bard"],
    'did you mean "bird"?',
  ],
  ["an empty group", () => [colours("bad"), "--labels", LABELS, "--group", "pet="], "Expected NAME"],
  ["a name that is none", () => [colours("bad"), ...GOOD, "--name", "Is it?"], "Expected a DNS label"],
  ["a long name", () => [colours("bad"), ...GOOD, "--name", "a".repeat(64)], "Expected a DNS label"],
  ["a service's name", () => [colours("bad"), ...GOOD, "--name", "gateway"], "no model"],
  ["a folder up", () => [colours("bad"), ...GOOD, "--model", "../bad"], "Expected a name"],
  [
    "a normalisation of no name",
    () => [colours("bad"), ...GOOD, "--normalise", "imagnet"],
    "Expected one of imagenet",
  ],
  ["half a normalisation", () => [colours("bad"), ...GOOD, "--mean", "1,2,3"], "three numbers"],
  ["a deviation of zero", () => [colours("bad"), ...GOOD, "--mean", "1,2,3", "--std", "1,0,1"], "none 0"],
  ["a size of another kind", () => [colours("bad"), ...GOOD, "--size", "big"], "Expected a whole number"],
  ["another size than the graph's", () => [colours("bad"), ...GOOD, "--size", "64"], "takes 32 × 32 pixels"],
  ["a short side below the frame", () => [colours("bad"), ...GOOD, "--short-side", "16"], "at least 32"],
  ["a missing photo", () => [colours("bad"), ...GOOD, "--photo", "no.jpg"], "Cannot read the photo"],
  [
    "a photo that is none",
    () => [colours("bad"), ...GOOD, "--photo", "package.json"],
    "The photo to try it on",
  ],
  ["a misspelt option", () => [colours("bad"), ...GOOD, "--lables", "x"], "--help"],
  [
    "too few labels for what comes out, which the file does not say",
    () => [colours("bad", { outputs: "any" }), "--labels", "cat,dog", "--group", "cat"],
    '"scores" float32[n, 3]',
  ],
  ["a file of another format", () => ["package.json", ...GOOD], "Not an ONNX model"],
  ["grey photos", () => [colours("bad", { channels: 1 }), ...GOOD], "expected 3 channels"],
  ["a batch of eight", () => [colours("bad", { batch: 8 }), ...GOOD], "computes 8 at once"],
  ["a shape that says nothing", () => [colours("bad", { side: 3 }), ...GOOD], "say --layout"],
  ["half floats", () => [colours("bad", { type: TYPE.float16 }), ...GOOD], "expected float or uint8"],
  ["weights that are no numbers", () => [colours("bad", { weight: Number.NaN }), ...GOOD], "not finite"],
])(
  "%s is told in a line, and nothing is written",
  (_, args, message) => {
    const { stderr, status } = run(...args());
    expect(stderr).toContain(message);
    expect(stderr.trim().split("\n")).toHaveLength(1);
    expect(status).toBeGreaterThan(0);
    expect(existsSync(join(models, "bad"))).toBe(false);
    expect(existsSync(join(services, "bad-cat.service.ts"))).toBe(false);
  },
  60_000,
);

test("--help tells what there is", () => {
  const { stdout, status } = run("--help");
  expect(status).toBe(0);
  for (const option of ["--labels", "--group", "--normalise", "--force"]) expect(stdout).toContain(option);
});
