import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, extname, join, relative, resolve } from "node:path";
import { wholeCores } from "../lib/load/cgroup.ts";
import type { Layout } from "../lib/models/add.ts";
import { serviceFiles } from "./app.ts";
import { commandLine, misused } from "./cli.ts";

const USAGE = `
Adds an ONNX image classifier: tries it on a photo, writes its manifest, and a service for each question:

    npm run models:add -- animals.onnx --labels animals.txt --group fox

    <file>                the graph: one image in, one number for each label out
    --labels FILE|LIST    a file with a label a line, or labels joined by commas, in the order of the outputs
    --group NAME[=LABELS] what the service asks for: a label, or a name for several joined by commas; again for another
                          service
    --name NAME           of the service, if there is one group [<model>-<group>]
    --question TEXT       of the service, for people [Is it a <group>?]
    --model NAME          of the model's folder [as the file]
    --normalise HOW       of a graph of floats: imagenet, 0to1, minus1to1, none; or --mean and --std, of pixels from 0 to
                          255, each R,G,B [imagenet]
    --short-side N        scale a photo's short side to this before the centre is cut out [the photo just covers it]
    --size N              pixels of both sides, where the graph takes any [224]
    --layout nchw|nhwc    where the shape does not say
    --activation WHAT     softmax, or none if the graph gives probabilities [found out]
    --photo FILE          to try it on [one of ours]
    --licence TEXT        of the graph, for people [not stated]
    --force               replace a model or service of that name
    --models DIR          [models]
    --services DIR        [services]
`;

const ROOT = resolve(import.meta.dirname, "..");
const PHOTO = resolve(ROOT, "test/fixtures/golden/image.png");
/** What Kubernetes takes for the name of a Deployment, and addresses for that of a model (RFC 1123). */
const DNS_LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const VERSION = 1;

const { values, positionals } = commandLine(
  USAGE,
  {
    labels: { type: "string" },
    group: { type: "string", multiple: true },
    name: { type: "string" },
    question: { type: "string" },
    model: { type: "string" },
    normalise: { type: "string" },
    mean: { type: "string" },
    std: { type: "string" },
    "short-side": { type: "string" },
    size: { type: "string" },
    layout: { type: "string" },
    activation: { type: "string" },
    photo: { type: "string" },
    licence: { type: "string", default: "not stated" },
    force: { type: "boolean", default: false },
    models: { type: "string", default: process.env["MODELS_DIR"] ?? "models" },
    services: { type: "string", default: "services" },
  },
  1,
);
const [file = ""] = positionals;
if (file === "") misused("Expected an ONNX file; --help tells what there is");
if (!existsSync(file)) misused(`There is no ${file}`);
if (values.labels === undefined)
  misused("Expected --labels: a file with a label a line, or labels joined by commas");
if (!values.group?.length) misused("Expected --group: the label that means yes, or NAME=LABEL,LABEL…");

const labels = labelsOf(values.labels);
const model = values.model ?? nameOf(basename(file, extname(file)));
if (!DNS_LABEL.test(model)) misused(`Expected a name of a–z, 0–9 and - for --model but received "${model}"`);
const groups = Object.fromEntries(values.group.map(groupOf));
const services = servicesOf(Object.keys(groups));

const options = {
  file,
  name: model,
  version: VERSION,
  modelsDir: values.models,
  labels,
  groups,
  normalisation: normalisationOf(),
  ...numberOption("short-side", "shortSide"),
  ...numberOption("size", "size"),
  ...oneOf("layout", ["nchw", "nhwc"] satisfies Layout[]),
  ...oneOf("activation", ["softmax", "none"] as const),
  photo: photoOf(values.photo),
  threads: wholeCores(),
  licence: values.licence,
  source: `${basename(file)}, added by models:add`,
  force: values.force,
};

// What was asked for wrongly has been told before runtime and decoder are loaded.
const { AddError, addModel } = await import("../lib/models/add.ts");
try {
  const { dir, notes, labels: seen, computeMs } = await addModel(options);
  mkdirSync(values.services, { recursive: true });
  for (const service of services) writeFileSync(service.path, serviceFile(service));
  for (const note of notes) console.log(note);
  console.log(`In the photo it sees ${seen.map(percentOf).join(", ")}; one takes ${computeMs.toFixed(1)} ms`);
  console.log([dir, ...services.map(({ path }) => path)].map((path) => relative("", path)).join("\n"));
  const ours = resolve(values.services) === resolve(ROOT, "services");
  const asked = services.map(({ name }) => name).join(",");
  console.log(`
npm start${ours ? "" : ` -- ${values.services}`}
curl -F image=@photo.jpg 'localhost:3000/api/classify?models=${asked}'
${ours ? "\nFor a cluster: npm run compose && npm run k8s" : ""}`);
} catch (error) {
  console.error(error instanceof AddError ? error.message : error);
  process.exitCode = 1;
}

function percentOf({ label, probability }: { readonly label: string; readonly probability: number }): string {
  return `${label} (${(100 * probability).toFixed(1)} %)`;
}

/** A name that may be one, from whatever a file is called. */
function nameOf(text: string): string {
  return text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-+|-+$/g, "")
    .slice(0, 40);
}

function labelsOf(given: string): readonly string[] {
  const lines = existsSync(given) ? readFileSync(given, "utf8").split("\n") : given.split(",");
  if (lines.length < 2) misused(`There is no file ${given}, and it is no list of labels joined by commas`);
  const found = lines.map((line) => line.trim()).filter((line) => line !== "");
  const twice = found.find((label, i) => found.indexOf(label) < i);
  if (twice !== undefined) misused(`Expected different labels, but "${twice}" is there twice`);
  return found;
}

/** `fox`, or `pet=cat,dog`. */
function groupOf(given: string): readonly [string, readonly string[]] {
  const [name = "", list] = given.split("=", 2);
  const names = list === undefined ? [name] : list.split(",").map((label) => label.trim());
  if (name.trim() === "" || names.includes(""))
    misused(`Expected NAME or NAME=LABEL,LABEL… for --group but received "${given}"`);
  return [name.trim(), [...new Set(names)]];
}

interface Service {
  readonly name: string;
  readonly group: string;
  readonly path: string;
}

function servicesOf(names: readonly string[]): readonly Service[] {
  if (values.name !== undefined && names.length > 1)
    misused("--name is for one group; leave it out for several");
  const taken = existsSync(values.services) ? serviceFiles([values.services]) : new Map<string, string>();
  return names.map((group) => {
    const name = values.name ?? `${model}-${nameOf(group)}`;
    if (!DNS_LABEL.test(name)) {
      misused(`Expected a DNS label for --name: 1 to 63 of a–z, 0–9 and -, but received "${name}"`);
    }
    if (["gateway", "dispatcher"].includes(name)) misused(`"${name}" is a service that is no model`);
    const there = taken.get(name);
    if (there !== undefined && !values.force) {
      misused(`There is a service "${name}": ${there}; --force replaces it, --name takes another name`);
    }
    return { name, group, path: there ?? resolve(values.services, `${name}.service.ts`) };
  });
}

function serviceFile({ name, group, path }: Service): string {
  const from = (module: string) => {
    const way = relative(dirname(path), join(ROOT, module));
    return JSON.stringify(way.startsWith(".") ? way : `./${way}`);
  };
  const question = values.question ?? `Is it ${/^[aeiou]/i.test(group) ? "an" : "a"} ${group}?`;
  // A folder of its own need not be the one that MODELS_DIR names when the server starts.
  const elsewhere = resolve(values.models) !== resolve(ROOT, "models");
  const settings = [
    `model: ${JSON.stringify(model)}`,
    `group: ${JSON.stringify(group)}`,
    `question: ${JSON.stringify(question)}`,
    ...(elsewhere ? [`modelsDir: ${JSON.stringify(resolve(values.models))}`] : []),
  ];
  return `import { defineService } from ${from("lib/define.ts")};
import { ImageClassifier } from ${from("mixins/image-classifier.mixin.ts")};

export default defineService()({
  name: ${JSON.stringify(name)},
  mixins: [ImageClassifier],
  settings: ${settings.join(", ").length < 90 ? `{ ${settings.join(", ")} }` : `{\n    ${settings.join(",\n    ")},\n  }`},
});
`;
}

function normalisationOf() {
  const { normalise, mean, std } = values;
  if (mean !== undefined || std !== undefined) {
    if (normalise !== undefined) misused("Expected --normalise, or --mean and --std, not both");
    return { mean: coloursOf("mean", mean), std: coloursOf("std", std) };
  }
  const flat = (centre: number, scale: number) => ({
    mean: [centre, centre, centre] as const,
    std: [scale, scale, scale] as const,
  });
  const ways = {
    // Means and deviations of ImageNet's photos, as nearly all that was trained on them wants.
    imagenet: { mean: [123.675, 116.28, 103.53] as const, std: [58.395, 57.12, 57.375] as const },
    "0to1": flat(0, 255),
    minus1to1: flat(127.5, 127.5),
    none: flat(0, 1),
  };
  const way = normalise ?? "imagenet";
  if (Object.hasOwn(ways, way)) return ways[way as keyof typeof ways];
  return misused(`Expected one of ${Object.keys(ways).join(", ")} for --normalise but received "${way}"`);
}

function coloursOf(option: "mean" | "std", given: string | undefined): readonly [number, number, number] {
  const [red, green, blue, ...more] = (given ?? "")
    .split(",")
    .map((part) => (part.trim() === "" ? Number.NaN : Number(part)));
  const usable = (x: number | undefined): x is number => Number.isFinite(x) && !(option === "std" && x === 0);
  if (usable(red) && usable(green) && usable(blue) && more.length === 0) return [red, green, blue];
  return misused(
    `Expected three numbers joined by commas for --${option}${option === "std" ? ", none 0," : ""} but received "${given ?? ""}"`,
  );
}

function numberOption<Key extends string>(
  option: "short-side" | "size",
  key: Key,
): { readonly [K in Key]?: number } {
  const given = values[option];
  if (given === undefined) return {};
  const number = Number(given);
  if (Number.isSafeInteger(number) && number >= 1 && number <= 4096)
    return { [key]: number } as { [K in Key]: number };
  return misused(`Expected a whole number from 1 to 4096 for --${option} but received "${given}"`);
}

function oneOf<Key extends "layout" | "activation", Value extends string>(
  option: Key,
  known: readonly Value[],
): { readonly [K in Key]?: Value } {
  const given = values[option];
  if (given === undefined) return {};
  if ((known as readonly string[]).includes(given)) return { [option]: given } as { [K in Key]: Value };
  return misused(`Expected one of ${known.join(", ")} for --${option} but received "${given}"`);
}

function photoOf(given: string | undefined): Uint8Array {
  const path = given ?? PHOTO;
  try {
    return readFileSync(path);
  } catch {
    return misused(
      given === undefined ? "Expected --photo: there is none of ours here" : `Cannot read the photo ${path}`,
    );
  }
}
