import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Engine, EngineSpec } from "../../lib/engines/engine.ts";
import { Instance } from "../../lib/engines/instance.ts";
import { createEngine } from "../../lib/engines/runtimes.ts";
import { findsNative } from "../../lib/engines/tensorflow/native.ts";
import type { Tensors } from "../../lib/engines/tensors.ts";
import { systemClock } from "../../lib/request/clock.ts";
import {
  NORMALISATION,
  TENSORFLOW,
  tensorflowGolden,
  tensorflowSpec,
  tfjsRuntimes,
} from "../../testkit/tensorflow.ts";

const { image, mixed } = tensorflowGolden();
const NEVER = { deadline: Number.POSITIVE_INFINITY };
const engines: Engine[] = [];

afterEach(async () => {
  await Promise.all(engines.splice(0).map((engine) => engine.close()));
});

async function loaded(spec: EngineSpec) {
  const engine = createEngine(spec, { name: "test" });
  engines.push(engine);
  return { engine, signature: await engine.load(AbortSignal.timeout(60_000)) };
}

const both = (): Tensors => ({
  image: { dtype: "float32", shape: [2, 8, 8, 3], data: Float32Array.from(image.inputs.flat()) },
});

function mixedItem(bytes: readonly number[], counts: readonly number[]): Tensors {
  return {
    bytes: { dtype: "uint8", shape: [1, 4], data: Uint8Array.from(bytes) },
    counts: { dtype: "int64", shape: [1, 4], data: BigInt64Array.from(counts, BigInt) },
  };
}

function expectProbabilities(outputs: Tensors): void {
  const { data = [] } = outputs["label"] ?? {};
  const expected = image.probabilities.flat();
  expect(data).toHaveLength(expected.length);
  for (const [i, p] of expected.entries()) expect(data[i]).toBeCloseTo(p, 5);
}

/** As a model is loaded for service: signature compared, warmed up. What it failed with, for the log. */
async function refusal(spec: EngineSpec): Promise<string> {
  const reasons: string[] = [];
  const instance = new Instance({
    name: "test",
    spec,
    create: (each) => createEngine(each, { name: "test" }),
    clock: systemClock,
    loadTimeoutMs: 60_000,
    onState: () => {},
    onDeath: (reason) => reasons.push(reason),
  });
  await expect(instance.load()).rejects.toMatchObject({
    type: expect.stringMatching(/ENGINE_CRASHED|FAILED/),
  });
  expect(instance.state).toBe("closed");
  return reasons.join("\n");
}

describe.each(tfjsRuntimes())("%s", (runtime) => {
  test.each(["graph", "layers"] as const)("gives TensorFlow's answers of a %s model", async (model) => {
    using spec = tensorflowSpec(model, runtime);
    const { engine, signature } = await loaded(spec);
    expect(signature).toMatchObject({ inputs: spec.inputs, outputs: spec.outputs });
    expect(signature.fixedBatch).toBeUndefined();
    expectProbabilities(await engine.run(both(), 2, NEVER));
  });

  test("says what computes", async () => {
    using spec = tensorflowSpec("graph", runtime, 2);
    const { signature } = await loaded(spec);
    expect(signature.engine).toMatch(
      runtime === "tfjs-wasm"
        ? /^TensorFlow\.js 4\..*WASM \(SIMD, threads\)$/
        : /^tfjs-node 4\..*\(TensorFlow 2\./,
    );
  });

  test("gives the same answers with two threads", async () => {
    using spec = tensorflowSpec("graph", runtime, 2);
    const { engine } = await loaded(spec);
    for (let i = 0; i < 20; i++) expectProbabilities(await engine.run(both(), 2, NEVER));
  });

  test("takes an image's bytes and normalises them, channels last", async () => {
    using floats = tensorflowSpec("graph", runtime);
    const spec = {
      ...floats,
      inputs: [{ name: "image", dtype: "uint8", shape: [8, 8, 3] }] as const,
      planes: { image: NORMALISATION },
    };
    const { engine, signature } = await loaded(spec);
    expect(signature.inputs).toEqual(spec.inputs);
    const bytes = Uint8Array.from(image.inputs[0] ?? [], (x) => Math.round(127.5 * x + 127.5));
    const near = Float32Array.from(bytes, (byte) => (byte - 127.5) / 127.5);
    const fromBytes = await engine.run(
      { image: { dtype: "uint8", shape: [1, 8, 8, 3], data: bytes } },
      1,
      NEVER,
    );
    const plain = await loaded(floats);
    const fromFloats = await plain.engine.run(
      { image: { dtype: "float32", shape: [1, 8, 8, 3], data: near } },
      1,
      NEVER,
    );
    const [a = [], b = []] = [fromBytes["label"]?.data, fromFloats["label"]?.data];
    expect(a).toHaveLength(3);
    for (let i = 0; i < 3; i++) expect(a[i]).toBeCloseTo(Number(b[i]), 5);
  });

  test("has bytes, whole numbers of 64 bits and loops", async () => {
    using spec = tensorflowSpec("mixed", runtime);
    const { engine, signature } = await loaded(spec);
    const byName = (list: readonly { readonly name: string }[]) =>
      [...list].sort((a, b) => (a.name < b.name ? -1 : 1));
    expect(byName(signature.inputs)).toEqual(byName(spec.inputs));
    expect(byName(signature.outputs)).toEqual(byName(spec.outputs));
    for (const [i, [bytes, counts]] of mixed.inputs.entries()) {
      const { best, sum, rounds } = await engine.run(mixedItem(bytes, counts), 1, NEVER);
      expect({ best: best?.data, sum: sum?.data, rounds: [...(rounds?.data ?? [])] }).toEqual({
        best: BigInt64Array.of(BigInt(mixed.answers[i]?.best ?? -1)),
        sum: Int32Array.of(mixed.answers[i]?.sum ?? -1),
        rounds: mixed.answers[i]?.rounds,
      });
    }
  });

  test("refuses a whole number that does not fit, and goes on", async () => {
    using spec = tensorflowSpec("mixed", runtime);
    const { engine } = await loaded(spec);
    const large = engine.run(mixedItem([0, 0, 0, 0], [2 ** 40, 0, 0, 0]), 1, NEVER);
    await expect(large).rejects.toMatchObject({
      type: "PREDICTION_FAILED",
      message: /does not fit into 32 bits/,
    });
    const { sum } = await engine.run(mixedItem([1, 0, 0, 0], [1, 0, 0, 0]), 1, NEVER);
    expect(sum?.data).toEqual(Int32Array.of(2));
  });

  const spoilt: Record<string, [model: "graph" | "layers", (dir: string) => void, RegExp]> = {
    "half of its weights": [
      "graph",
      (dir) => writeFileSync(shard(dir), readFileSync(shard(dir)).subarray(0, 100)),
      /weights of \d+ bytes, but its shards have 100/,
    ],
    "no shard": ["layers", (dir) => rmSync(shard(dir)), /ENOENT/],
    "half of its JSON": ["graph", (dir) => edit(dir, (text) => text.slice(0, 500)), /model\.json is no JSON/],
    "a JSON of something else": ["graph", (dir) => edit(dir, () => "[1]"), /is no model of TensorFlow\.js/],
    "a topology of nonsense": [
      "layers",
      (dir) => edit(dir, (text) => text.replaceAll('"Conv2D"', '"Convolvulus"')),
      /Convolvulus/,
    ],
    "a shard outside of its folder": [
      "graph",
      (dir) => edit(dir, (text) => text.replace("group1-shard1of1.bin", "../../../etc/passwd")),
      /which the manifest does not list/,
    ],
    "a weight that is not a number": [
      "graph",
      (dir) => {
        const bytes = readFileSync(shard(dir));
        // A ReLU would make a zero of what comes of it.
        bytes.writeFloatLE(Number.NaN, 4 * Math.floor(bytes.length / 8));
        writeFileSync(shard(dir), bytes);
      },
      /The weight ".+" in model\.json is not finite/,
    ],
    "an operator that nobody has": [
      "graph",
      (dir) => edit(dir, (text) => text.replaceAll('"op": "MaxPool"', '"op": "Betweenness"')),
      /Betweenness/,
    ],
  };
  test.each(Object.entries(spoilt))(
    "refuses a model with %s, and says so",
    async (_, [model, spoil, reason]) => {
      using spec = tensorflowSpec(model, runtime);
      spoil(spec.dir);
      expect(await refusal(spec)).toMatch(reason);
    },
  );

  test.each([
    [
      "another input",
      { inputs: [{ name: "picture", dtype: "float32", shape: [8, 8, 3] }] as const },
      /"picture"/,
    ],
    [
      "another shape",
      { inputs: [{ name: "image", dtype: "float32", shape: [9, 9, 3] }] as const },
      /8, 8, 3/,
    ],
    ["another type", { outputs: [{ name: "label", dtype: "int32", shape: [3] }] as const }, /"label" int32/],
  ])("refuses a model whose manifest has %s", async (_, change, reason) => {
    using spec = tensorflowSpec("graph", runtime);
    expect(await refusal({ ...spec, ...change })).toMatch(reason);
  });
});

const shard = (dir: string) => join(dir, "group1-shard1of1.bin");

function edit(dir: string, change: (text: string) => string): void {
  const file = join(dir, "model.json");
  writeFileSync(file, change(readFileSync(file, "utf8")));
}

test("the runtime for both takes tfjs-node where it is, else WebAssembly", async () => {
  using spec = tensorflowSpec("graph", "tfjs");
  const { engine, signature } = await loaded(spec);
  expect(signature.engine).toMatch(findsNative() ? /^tfjs-node/ : /WASM/);
  expectProbabilities(await engine.run(both(), 2, NEVER));
});

if (findsNative()) {
  test("a SavedModel gives TensorFlow's answers", async () => {
    using spec = tensorflowSpec("saved", "saved-model");
    const { engine, signature } = await loaded(spec);
    expect(signature).toMatchObject({ inputs: spec.inputs, outputs: spec.outputs });
    expectProbabilities(await engine.run(both(), 2, NEVER));
  });

  test.each([
    ["no variables", (dir: string) => rmSync(join(dir, "variables"), { recursive: true })],
    ["half of its graph", (dir: string) => halve(join(dir, "saved_model.pb"))],
    ["half of its variables", (dir: string) => halve(join(dir, "variables/variables.data-00000-of-00001"))],
  ])("a SavedModel with %s is refused", async (_, spoil) => {
    using spec = tensorflowSpec("saved", "saved-model");
    spoil(spec.dir);
    expect(await refusal(spec)).not.toBe("");
  });
} else {
  test("a SavedModel is refused where there is no tfjs-node, which is what it needs", async () => {
    using spec = tensorflowSpec("saved", "saved-model");
    expect(await refusal(spec)).toMatch(/@tensorflow\/tfjs-node cannot be used: it is not installed/);
  });
}

const python = spawnSync("scripts/venv.sh", ["--made", "tensorflow"], { encoding: "utf8" });
if (python.status === 0) {
  test("the models here are those that TensorFlow makes", () => {
    const dir = mkdtempSync(join(tmpdir(), "made-"));
    try {
      const args = ["test/fixtures/tensorflow/make.py", dir];
      const { status, stderr } = spawnSync(join(python.stdout.trim(), "bin/python"), args, {
        encoding: "utf8",
      });
      expect({ status, stderr: status === 0 ? "" : stderr }).toEqual({ status: 0, stderr: "" });
      const made = tensorflowGolden(dir);
      expect(made.mixed).toEqual(mixed);
      for (const [i, p] of made.image.probabilities.flat().entries()) {
        expect(p).toBeCloseTo(image.probabilities.flat()[i] ?? Number.NaN, 5);
      }
      for (const file of ["graph/model.json", "layers/model.json", "mixed/model.json"]) {
        expect(weightsOf(join(dir, file))).toEqual(weightsOf(join(TENSORFLOW, file)));
      }
    } finally {
      rmSync(dir, { recursive: true });
    }
  }, 120_000);
}

/** Names, types and shapes; other processors round the values differently. */
function weightsOf(file: string): unknown {
  return (JSON.parse(readFileSync(file, "utf8")) as { weightsManifest: unknown }).weightsManifest;
}

function halve(file: string): void {
  const bytes = readFileSync(file);
  writeFileSync(file, bytes.subarray(0, bytes.length >> 1));
}
