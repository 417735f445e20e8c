import { existsSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { wholeCores } from "../lib/load/cgroup.ts";
import { versionFolder } from "../lib/models/manifest.ts";
import { type QuantizeReport, quantizeModel } from "../lib/models/quantize.ts";
import { commandLine, misused } from "./cli.ts";

const USAGE = `
Writes an int8 version of a float32 ONNX image classifier, and compares the two:

    npm run models:quantize -- <model> --calibrate <photos>

    <model>           name of a model, or a version's folder
    --calibrate DIR   photos like those it will be asked about; half of them give the ranges, the others compare.
                      Folders or names that are labels or groups of the model (cat/1.jpg, cat-1.jpg) give the accuracy, too
    --out DIR         the new version [beside the model: <model>-int8/1]
    --samples N       photos for each half, at most [128]
    --models DIR      folder of the models [models]
`;

const { values, positionals } = commandLine(
  USAGE,
  {
    calibrate: { type: "string" },
    out: { type: "string" },
    samples: { type: "string", default: "128" },
    models: { type: "string", default: process.env["MODELS_DIR"] ?? "models" },
  },
  1,
);
const [model = ""] = positionals;
const { calibrate, samples } = values;
if (model === "") misused("Expected a model; --help tells what there is");
if (calibrate === undefined || !existsSync(calibrate)) {
  misused(`Expected a folder with photos for --calibrate but received "${calibrate ?? ""}"`);
}
if (!(Number.isSafeInteger(Number(samples)) && Number(samples) > 0)) {
  misused(`Expected a whole number of at least 1 for --samples but received "${samples}"`);
}

try {
  const from = versionFolder(model, values.models);
  const name = basename(dirname(from));
  const to = resolve(values.out ?? join(dirname(dirname(from)), `${name}-int8`, "1"));
  const report = await quantizeModel({
    from,
    to,
    photos: calibrate,
    samples: Number(samples),
    threads: wholeCores(),
    onProgress: (what, done, of) => {
      if (process.stderr.isTTY) process.stderr.write(`\r${what} ${done}/${of}${done === of ? "\n" : ""}`);
    },
  });
  console.log(table(report));
  console.log(to);
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 1;
}

function table({
  bytes,
  perSecond,
  agreement,
  largestDifference,
  accuracy,
  ...counts
}: QuantizeReport): string {
  const megabytes = (of: number) => `${(of / 1e6).toFixed(1)} MB`;
  const percent = (share: number) => `${(100 * share).toFixed(2)} %`;
  const row = (name: string, ...cells: string[]) =>
    name.padEnd(14) + cells.map((cell) => cell.padStart(14)).join("");
  const ratio = perSecond.int8 / perSecond.float32;
  return [
    row("", "float32", "int8", "ratio"),
    row("size", megabytes(bytes.float32), megabytes(bytes.int8), (bytes.int8 / bytes.float32).toFixed(2)),
    row("items/s", perSecond.float32.toFixed(1), perSecond.int8.toFixed(1), ratio.toFixed(2)),
    ...(accuracy ? [row(`right of ${accuracy.of}`, percent(accuracy.float32), percent(accuracy.int8))] : []),
    `Both name the same label for ${percent(agreement)} of ${counts.askedAbout} photos; probabilities differ by ` +
      `${largestDifference.toFixed(4)} at most. Ranges from ${counts.calibratedWith} other photos.`,
  ].join("\n");
}
