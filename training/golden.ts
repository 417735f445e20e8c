/**
 * Writes what the float32 graph and the shipped int8 graph say to the golden pixels, beside what `golden.py` wrote.
 *
 *     node training/golden.ts --work DIR --model models/pets-resnet/1/model.onnx --out test/fixtures/golden
 */
import { writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import sharp from "sharp";
import { runtimeOf } from "../lib/engines/engine.ts";
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
  const runtime = await load({
    runtime: runtimeOf("onnx"),
    file,
    inputTensor: "pixels",
    outputTensor: "logits",
    itemShape: [info.height, info.width, info.channels],
    threads: 1,
  });
  const logits = [...(await runtime.run(data, 1))].map((x) => Number(x.toFixed(4)));
  writeFileSync(resolve(out, `${name}.json`), `${JSON.stringify(logits)}\n`);
  await runtime.dispose();
}
