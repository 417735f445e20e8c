import { createHash } from "node:crypto";
import type { ZooFile, ZooModel } from "../lib/models/zoo.ts";
import { model, node, tensor, value } from "../lib/onnx/build.ts";
import { TYPE, writeModel } from "../lib/onnx/proto.ts";

/** A model and class names with the shape of the zoo's, small: what it says is which of three colours a photo has. */
export interface TestZoo {
  readonly model: ZooModel;
  /** By their names. */
  readonly files: Readonly<Record<string, Buffer>>;
}

const CLASSES = 1000;
/** Tabby, Chihuahua, and anything else. */
const [CAT, DOG, OTHER] = [281, 151, 0];

/** Red photos are cats, green ones dogs, blue ones tench. */
export function testZoo(): TestZoo {
  const weights = new Float32Array(CLASSES * 3);
  for (const [channel, label] of [CAT, DOG, OTHER].entries()) weights[3 * label + channel] = 10;
  const onnx = Buffer.from(
    writeModel(
      model({
        name: "test",
        node: [
          node("GlobalAveragePool", ["data"], "averaged"),
          node("Flatten", ["averaged"], "flat"),
          node("Gemm", ["flat", "weights", "bias"], "logits", { transB: 1 }),
        ],
        initializer: [
          tensor("weights", weights, [CLASSES, 3]),
          tensor("bias", new Float32Array(CLASSES), [CLASSES]),
        ],
        // As in the zoo's older files, where constants are inputs, too.
        input: [
          value("data", TYPE.float, ["N", 3, 224, 224]),
          value("weights", TYPE.float, [CLASSES, 3]),
          value("bias", TYPE.float, [CLASSES]),
        ],
        output: [value("logits", TYPE.float, ["N", CLASSES])],
      }),
    ),
  );
  const lines = Array.from({ length: CLASSES }, (_, i) => `n${String(i).padStart(8, "0")} ${nameOf(i)}`);
  const classes = Buffer.from(`${lines.join("\n")}\n`);
  return {
    model: {
      file: factsOf("model.onnx", onnx),
      classes: factsOf("synset.txt", classes),
      accuracy: { top1: 0.5 },
    },
    files: { "model.onnx": onnx, "synset.txt": classes },
  };
}

/** ImageNet has two cranes. */
function nameOf(label: number): string {
  return label === 134 || label === 517 ? "crane" : `thing ${label}, also ${label}`;
}

function factsOf(name: string, bytes: Buffer): ZooFile {
  return { name, bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") };
}
