/**
 * Writes the int8 graph from the float32 one and the photos that `export.py` kept, as `npm run models:quantize` does.
 *
 *     node training/quantize.ts --work DIR --model models/pets-resnet/1/model.onnx
 */
import "../lib/engines/no-telemetry.ts";
import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { Tensor } from "onnxruntime-node";
import { wholeCores } from "../lib/load/cgroup.ts";
import { quantize } from "../lib/onnx/calibrate.ts";
import type { Export } from "./reports.ts";

const { work, model } = parseArgs({
  options: { work: { type: "string", default: "" }, model: { type: "string", default: "" } },
}).values;
const { side, calibration, seed } = JSON.parse(readFileSync(resolve(work, "export.json"), "utf8")) as Export;
const pixels = readFileSync(resolve(work, "calibration.bin"));
const size = side * side * 3;
if (pixels.length !== calibration * size) {
  throw new Error(
    `Expected ${calibration} photos of ${size} bytes in calibration.bin but it has ${pixels.length}`,
  );
}

const photos = Array.from({ length: calibration }, (_, i) => async () => ({
  pixels: new Tensor("uint8", pixels.subarray(i * size, (i + 1) * size), [1, side, side, 3]),
}));
const int8 = await quantize(readFileSync(resolve(work, "float32.onnx")), photos, {
  threads: wholeCores(),
  seed,
});
writeFileSync(model, int8);
console.log(`${model}: ${int8.length} bytes, ranges from ${calibration} photos`);
