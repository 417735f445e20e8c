/**
 * Writes what the float32 graph and the shipped int8 graph say to the golden pixels, beside what `golden.py` wrote.
 *
 *     node training/golden.ts --work DIR --model models/pets-resnet/1/model.onnx --out test/fixtures/golden
 */
import { writeFileSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { parseArgs } from "node:util";
import sharp from "sharp";
import load from "../lib/engines/onnx.ts";

const { work, model, out } = parseArgs({
  options: {
    work: { type: "string", default: "" },
    model: { type: "string", default: "" },
    out: { type: "string", default: "" },
  },
}).values;
const { data, info } = await sharp(resolve(out, "pixels.png")).raw().toBuffer({ resolveWithObject: true });

for (const [name, file] of [
  ["float32", resolve(work, "float32.onnx")],
  ["int8", resolve(model)],
] as const) {
  const shape = [info.height, info.width, info.channels];
  const runtime = await load({
    runtime: "onnx",
    dir: dirname(file),
    files: [basename(file)],
    inputs: [{ name: "pixels", dtype: "uint8", shape }],
    outputs: [{ name: "logits", dtype: "float32", shape: [null] }],
    maxBatch: 1,
    threads: 1,
  });
  const { logits } = await runtime.run({ pixels: { dtype: "uint8", shape: [1, ...shape], data } }, 1);
  const rounded = Array.from((logits?.data ?? []) as Float32Array, (x) => Number(x.toFixed(4)));
  writeFileSync(resolve(out, `${name}.json`), `${JSON.stringify(rounded)}\n`);
  await runtime.close();
}
