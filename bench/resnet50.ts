import "../lib/engines/no-telemetry.ts";
/**
 * Writes a ResNet-50 (torchvision's layout, He et al. 2015, https://arxiv.org/abs/1512.03385) with random weights as a
 * model of the server: its answers mean nothing, its time does.
 *
 *     node bench/resnet50.ts [--float] [--out build/models/resnet50-random/1]
 */
import "../lib/engines/no-telemetry.ts";
import { mkdirSync, writeFileSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { parseArgs } from "node:util";
import { Tensor } from "onnxruntime-node";
import { wholeCores } from "../lib/load/cgroup.ts";
import { fileEntry, type Manifest } from "../lib/models/manifest.ts";
import { model, node, tensor, value } from "../lib/onnx/build.ts";
import { quantize } from "../lib/onnx/calibrate.ts";
import { type GraphProto, TYPE, writeModel } from "../lib/onnx/proto.ts";
import { randomBy } from "../lib/onnx/ranges.ts";

const SIDE = 224;
const CLASSES = 1000;
const SEED = 1;
/** Bottleneck blocks of each stage, and the channels of their narrow part. */
const STAGES = [
  [3, 64],
  [4, 128],
  [6, 256],
  [3, 512],
] as const;
const STEM_CHANNELS = 64;
/** A block gives so many times the channels of its narrow part. */
const EXPANSION = 4;
/** Images whose activations the int8 graph's ranges come from. */
const CALIBRATION = 8;
/** As `training/network.py`: a uint8 image is a quantised tensor. */
const PIXEL_ZERO = 128;
const PIXEL_SCALE = 1 / 64;
/** Share of a block's branch in the sum: keeps activations from growing over sixteen of them. */
const BRANCH = 0.5;

interface Convolution {
  readonly channels: number;
  readonly kernel?: number;
  readonly stride?: number;
  readonly relu?: boolean;
  /** Of the weights' usual size (He et al. 2015, https://arxiv.org/abs/1502.01852). */
  readonly gain?: number;
}

/** The float32 graph: `pixels [n, 224, 224, 3]` uint8 → `logits [n, 1000]`. Batch norms are folded, as in serving. */
export function resnet50(seed = SEED): Uint8Array {
  const random = randomBy(seed);
  const graph: GraphProto = {
    name: "resnet50",
    node: [],
    initializer: [],
    input: [value("pixels", TYPE.uint8, ["n", SIDE, SIDE, 3])],
    output: [value("logits", TYPE.float, ["n", CLASSES])],
  };
  const add = (...args: Parameters<typeof node>) => {
    graph.node.push(node(...args));
    return args[2];
  };
  const constant = (name: string, values: Float32Array, dims: readonly number[]) => {
    graph.initializer.push(tensor(name, values, dims));
    return name;
  };
  const weights = (name: string, dims: readonly number[], gain: number) => {
    const inputs = dims.slice(1).reduce((product, length) => product * length, 1);
    const size = inputs * (dims[0] ?? 1);
    return constant(name, normal(size, gain * Math.sqrt(2 / inputs), random), dims);
  };
  const conv = (
    name: string,
    from: string,
    inputs: number,
    { channels, kernel = 1, stride = 1, relu = false, gain = 1 }: Convolution,
  ) => {
    const pad = (kernel - 1) / 2;
    const shape = { kernel_shape: [kernel, kernel], strides: [stride, stride], pads: [pad, pad, pad, pad] };
    const weight = weights(`${name}_weight`, [channels, inputs, kernel, kernel], gain);
    const bias = constant(`${name}_bias`, normal(channels, 0.1, random), [channels]);
    const sum = add("Conv", [from, weight, bias], relu ? `${name}_sum` : name, shape);
    return relu ? add("Relu", [sum], name) : sum;
  };

  add("Cast", ["pixels"], "pixels_float", { to: TYPE.float });
  add("Sub", ["pixels_float", constant("pixel_zero", Float32Array.of(PIXEL_ZERO), [])], "pixels_centred");
  add(
    "Mul",
    ["pixels_centred", constant("pixel_scale", Float32Array.of(PIXEL_SCALE), [])],
    "pixels_normalised",
  );
  add("Transpose", ["pixels_normalised"], "planes", { perm: [0, 3, 1, 2] });
  conv("stem", "planes", 3, { channels: STEM_CHANNELS, kernel: 7, stride: 2, relu: true });
  let at = add("MaxPool", ["stem"], "pooled", { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1] });
  let inputs: number = STEM_CHANNELS;
  for (const [stage, [blocks, narrow]] of STAGES.entries()) {
    for (let block = 0; block < blocks; block++) {
      const name = `stage${stage + 1}_${block + 1}`;
      const stride = block === 0 && stage > 0 ? 2 : 1;
      const channels = narrow * EXPANSION;
      const reduced = conv(`${name}_reduce`, at, inputs, { channels: narrow, relu: true });
      const seen = conv(`${name}_see`, reduced, narrow, { channels: narrow, kernel: 3, stride, relu: true });
      const branch = conv(`${name}_expand`, seen, narrow, { channels, gain: BRANCH });
      const shortcut =
        block > 0 ? at : conv(`${name}_shortcut`, at, inputs, { channels, stride, gain: Math.SQRT1_2 });
      const sum = add("Add", [branch, shortcut], `${name}_sum`);
      at = add("Relu", [sum], name);
      inputs = channels;
    }
  }
  const flat = add("Flatten", [add("GlobalAveragePool", [at], "averaged")], "flat");
  const weight = weights("head_weight", [CLASSES, inputs], 1);
  const bias = constant("head_bias", normal(CLASSES, 0.1, random), [CLASSES]);
  add("Gemm", [flat, weight, bias], "logits", { transB: 1 });
  return writeModel(model(graph));
}

/** The same as int8, by the code that quantises any classifier. */
export function resnet50Int8(seed = SEED): Promise<Uint8Array> {
  const random = randomBy(seed);
  const samples = Array.from({ length: CALIBRATION }, () => async () => ({ pixels: smoothImage(random) }));
  return quantize(resnet50(seed), samples, { threads: wholeCores() });
}

/** Normally distributed numbers around 0 (Box and Muller 1958). */
function normal(size: number, deviation: number, random: () => number): Float32Array {
  const values = new Float32Array(size);
  for (let i = 0; i < size; i += 2) {
    const radius = deviation * Math.sqrt(-2 * Math.log(1 - random()));
    const angle = 2 * Math.PI * random();
    values[i] = radius * Math.cos(angle);
    if (i + 1 < size) values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

/** Waves of a few colours with a little noise: like photos, most of their energy is in low frequencies. */
function smoothImage(random: () => number): Tensor {
  const pixels = new Uint8Array(SIDE * SIDE * 3);
  const waves = Array.from({ length: 6 }, () => Array.from({ length: 6 }, random));
  for (let i = 0; i < SIDE * SIDE; i++) {
    const [x, y] = [(i % SIDE) / SIDE, Math.floor(i / SIDE) / SIDE];
    for (let channel = 0; channel < 3; channel++) {
      let level = 128 + 24 * (random() - 0.5);
      for (const [u = 0, v = 0, phase = 0, ...colour] of waves) {
        level +=
          60 *
          ((colour[channel] ?? 0) - 0.2) *
          Math.sin(2 * Math.PI * (6 * (u - 0.5) * x + 6 * (v - 0.5) * y + phase));
      }
      pixels[3 * i + channel] = Math.max(0, Math.min(255, level));
    }
  }
  return new Tensor("uint8", pixels, [1, SIDE, SIDE, 3]);
}

/** Writes the model with its manifest. @param dir `<name>/<version>` */
export async function writeResnet50(dir: string, float = false): Promise<void> {
  const bytes = float ? resnet50() : await resnet50Int8();
  const manifest: Manifest = {
    manifest: 2,
    name: basename(dirname(resolve(dir))),
    version: Number(basename(dir)),
    format: "onnx",
    files: [fileEntry("model.onnx", bytes)],
    inputs: [{ name: "pixels", dtype: "uint8", shape: [SIDE, SIDE, 3] }],
    outputs: [{ name: "logits", dtype: "float32", shape: [CLASSES] }],
    maxBatch: 64,
    kind: { name: "image" },
    task: {
      name: "classification",
      output: "logits",
      activation: "softmax",
      labels: Array.from({ length: CLASSES }, (_, i) => `class-${i}`),
      // Where ImageNet has its cats and dogs.
      groups: { cat: numbers(281, 285), dog: numbers(151, 268) },
    },
    licence: "none needed: random numbers",
    source: "bench/resnet50.ts",
  };
  mkdirSync(dir, { recursive: true });
  writeFileSync(resolve(dir, "model.onnx"), bytes);
  writeFileSync(resolve(dir, "manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`);
}

function numbers(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      float: { type: "boolean", default: false },
      out: { type: "string", default: "build/models/resnet50-random/1" },
    },
  });
  await writeResnet50(resolve(values.out), values.float);
  console.log(values.out);
}
