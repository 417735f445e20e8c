/**
 * Writes `manifest.json` and `MODEL_CARD.md` beside the exported model, from what export and evaluation reported.
 *
 *     node training/manifest.ts --work DIR --golden DIR --out models/pets-resnet/1 [--note TEXT]
 *
 * `--note`: what was different in this run from what the recipe says; it goes into the card.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { parseArgs } from "node:util";
import sharp from "sharp";
import { fileEntry, type Manifest, readManifest } from "../lib/models/manifest.ts";
import { tellBars } from "./bars.ts";
import type { Evaluation, Export, Scores } from "./reports.ts";

/** What the photos are and under which terms, by source. */
const SOURCES: Readonly<Record<string, readonly [what: string, terms: string]>> = {
  asirra180: [
    "Asirra (Kaggle cats-vs-dogs), from karemsaeed21/cat_vs_dog_classification_CNN",
    "none stated; Microsoft research terms",
  ],
  "asirra-chanakya": [
    "Asirra, from chanakya2734/Image-classification-using-CNN",
    "none stated; Microsoft research terms",
  ],
  "asirra-quoctrung": ["Asirra", "none stated; Microsoft research terms"],
  "breeds-chanakya": ["breed photos, dogs from Stanford Dogs", "none stated"],
  caltech101: ["Caltech-101", "CC BY 4.0"],
  nips17: ["ImageNet-like Flickr photos, from ZhengyuZhao/Targeted-Tansfer", "CC BY 2.0"],
  clothing: ["clothes, from alexeygrigorev/clothing-dataset-small", "CC0"],
  grocery: ["shelves, from marcusklasson/GroceryStoreDataset", "MIT"],
  popanimals: [
    "animals, from InputBlackBoxOutput/popular-animals-dataset",
    "images from web searches, terms unclear",
  ],
  monkeys: [
    "monkeys, from nikhildutta333/Monkey-Species-Classification",
    "images from web searches, terms unclear",
  ],
  "panda-pavan": ["pandas", "images from web searches, terms unclear"],
  kangaroo: ["kangaroos, from experiencor/kangaroo", "images from web searches, terms unclear"],
  raccoon: ["raccoons, from datitran/raccoon_dataset", "images from web searches, terms unclear"],
  houses: ["rooms and house fronts, from emanhamed/Houses-dataset", "cite Ahmed & Moustafa 2016"],
  faces: ["people, from chandrikadeb7/Face-Mask-Detection", "unclear"],
  imagen: ["ImageNet DET sample, from ajschumacher/imagen", "ImageNet terms"],
};

const { work, golden, out, note } = parseArgs({
  options: {
    work: { type: "string", default: "" },
    golden: { type: "string", default: "" },
    out: { type: "string", default: "" },
    note: { type: "string", default: "" },
  },
}).values;
const dir = resolve(out);
const run = JSON.parse(readFileSync(resolve(work, "export.json"), "utf8")) as Export;
const { float32, int8, agreement, calibrationError, confusion } = JSON.parse(
  readFileSync(resolve(work, "evaluation.json"), "utf8"),
) as Evaluation;
const round = (x: number) => Number(x.toFixed(4));
const percent = (x: number) => (100 * x).toFixed(2);

const PIXELS = "golden/pixels.bin";
mkdirSync(resolve(dir, "golden"), { recursive: true });
writeFileSync(resolve(dir, PIXELS), await sharp(resolve(golden, "pixels.png")).raw().toBuffer());

const manifest: Manifest = {
  $schema: "../../manifest.schema.json",
  manifest: 2,
  name: basename(dirname(dir)),
  version: Number(basename(dir)),
  format: "onnx",
  files: ["model.onnx", PIXELS].map((path) => fileEntry(path, readFileSync(resolve(dir, path)))),
  inputs: [{ name: "pixels", dtype: "uint8", shape: [run.side, run.side, 3] }],
  outputs: [{ name: "logits", dtype: "float32", shape: [run.labels.length] }],
  // More is no faster: on a CPU a batch takes as long as its items one by one.
  maxBatch: 64,
  kind: { name: "image" },
  task: {
    name: "classification",
    output: "logits",
    activation: "softmax",
    labels: [...run.labels],
    groups: { cat: [0], dog: [1] },
  },
  golden: [
    {
      inputs: { pixels: { dtype: "uint8", shape: [run.side, run.side, 3], data: { file: PIXELS } } },
      outputs: {
        logits: {
          dtype: "float32",
          shape: [run.labels.length],
          data: JSON.parse(readFileSync(resolve(golden, "int8.json"), "utf8")) as number[],
        },
      },
      tolerance: 0.05,
    },
  ],
  licence: "MIT; trained on photos of which some have research-only or unclear terms, see MODEL_CARD.md",
  source: "trained from scratch by training/make.sh",
  accuracy: { threeWay: round(int8.threeWay), cat: round(int8.cat), dog: round(int8.dog) },
};
writeFileSync(resolve(dir, "manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`);
readManifest(dir);
writeFileSync(resolve(dir, "MODEL_CARD.md"), card());
console.log(`${dir}: manifest.json and MODEL_CARD.md`);
checkBars();

/** The bars of `training/README.md`; a model below them must not be shipped unseen. */
function checkBars(): void {
  const bars: [string, boolean][] = [
    ["three-way accuracy of at least 93 %", int8.threeWay >= 0.93],
    ["cat question right in at least 95.5 %", int8.cat >= 0.955],
    ["dog question right in at least 95 %", int8.dog >= 0.95],
    ["int8 within half a point of float32", Math.abs(int8.threeWay - float32.threeWay) <= 0.005],
  ];
  tellBars(bars);
}

function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const line = (cells: readonly (string | number)[]) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

function card(): string {
  const total = Object.values(run.photos).reduce((a, b) => a + b, 0);
  const count = (label: number) => run.heldOut.filter((photo) => photo.label === label).length;
  const scores = (name: string, { threeWay, cat, dog, catByLabel, dogByLabel }: Scores) => [
    name,
    percent(threeWay),
    `${percent(cat)} (${percent(catByLabel)})`,
    `${percent(dog)} (${percent(dogByLabel)})`,
  ];
  const sources = [...new Set(Object.keys(run.photos).map((key) => key.split("/")[0] ?? ""))].sort();
  const margin = 1.96 * Math.sqrt((int8.threeWay * (1 - int8.threeWay)) / run.heldOut.length);
  return `# ${manifest.name}, version ${manifest.version}

Says of a photo whether it shows a cat, a dog or something else. Written by \`training/manifest.ts\`; change that, not this.

## Model

A residual network of ResNet-18's layout at width 48, ${(run.parameters / 1e6).toFixed(1)} million parameters, trained from scratch.
\`model.onnx\` (${((manifest.files[0]?.bytes ?? 0) / 1e6).toFixed(1)} MB): input \`pixels\`, \`[n, ${run.side}, ${run.side}, 3]\` uint8 RGB, normalised inside; output \`logits\`, \`[n, 3]\` float32, in the order ${run.labels.join(", ")}; softmax makes probabilities of them.
Integers inside: int8 weights with one scale for each output channel (7 bits used, so that processors without VNNI do not saturate), uint8 activations with ranges from ${run.calibration} training photos.

## Accuracy

On ${run.heldOut.length.toLocaleString("en")} photos that training never saw: 5 % of each source and class, chosen by seed ${run.seed}. They went through the server's own image pipeline and runtime.
A question is answered yes from a probability of 0.5 on; in brackets: yes when the label is the most probable of the three. In percent:

${table(["", "three-way", "cat?", "dog?"], [scores("float32", float32), scores("int8 (shipped)", int8)])}

Chance alone moves the three-way number by ±${percent(margin)} points (95 %). Both graphs name the same label for ${percent(agreement)} % of the photos. About 3 % of the labels in the data are doubtful, in the held-out photos too.

Confusion of the shipped model, in photos:

${table(
  ["right ↓ / said →", ...run.labels],
  confusion.map((row, i) => [`${run.labels[i]} (${count(i)})`, ...row]),
)}

## Intended use and limits

For trying and testing this server, and for questions where a wrong answer costs little.
- It knows photos in which one thing fills a good part of the frame. The photo is scaled until it covers ${run.side}×${run.side} pixels and its centre is cut out: what is small or at the edge is not seen.
- "Other" is what the training photos had of it: household things, clothes, groceries, houses, people, some animals. Animals close to cats and dogs (foxes, wolves, lynxes), drawings, toys and statues were rare or absent, and so were cats and dogs together.
- Probabilities are calibrated on photos like the training's (expected calibration error on the held-out photos ${percent(calibrationError)} %); on other kinds of photos they claim too much.
- It must not be used to decide anything about people. Their photos are in the data only as "other".

## Data

${total.toLocaleString("en")} photos of 160×160 pixels (short side scaled, centre cut out). Soft labels came from a larger network (an ImageNet-initialised ResNet-18).
**Some sources have research-only or unclear terms.** None of the photos is part of this repository; whoever wants to use the weights commercially should weigh that, or train on photos of their own.

${table(
  ["source", ...run.labels, "what", "terms as stated"],
  sources.map((source) => {
    const known = SOURCES[source];
    if (!known) throw new Error(`Expected the terms of ${source} in training/manifest.ts`);
    return [source, ...run.labels.map((label) => run.photos[`${source}/${label}`] ?? 0), ...known];
  }),
)}

## Recipe

\`training/make.sh\`: ${run.schedule.map(([epochs, side]) => `${epochs} epochs at ${side} px`).join(", ")}${run.epoch < run.schedule.reduce((sum, [epochs]) => sum + epochs, 0) ? ` (stopped after ${run.epoch})` : ""}; SGD with Nesterov momentum, one-cycle schedule; random resized crops, flips and colour jitter; cross-entropy against a mixture of hard and soft labels; bf16 arithmetic. The running average of the weights is shipped, its logits scaled by ${run.sharpening.toFixed(2)} (temperature scaling on the same training photos that gave the ranges). Numbers and reasons stand in \`training/train.py\`.
${note && `\n${note}\n`}`;
}
