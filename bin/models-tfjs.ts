import { basename, dirname, join, resolve } from "node:path";
import { versionFolder } from "../lib/models/manifest.ts";
import { writeTfjs } from "../lib/models/to-tfjs.ts";
import { commandLine, misused } from "./cli.ts";

const USAGE = `
Writes an ONNX model as a graph model of TensorFlow.js, float32 whatever it was:

    npm run models:tfjs -- <model>

    <model>        name of a model, or a version's folder
    --out DIR      the new version [beside the model: <model>-tfjs/1]
    --models DIR   folder of the models [models]
`;

const { values, positionals } = commandLine(
  USAGE,
  {
    out: { type: "string" },
    models: { type: "string", default: process.env["MODELS_DIR"] ?? "models" },
  },
  1,
);
const [model = ""] = positionals;
if (model === "") misused("Expected a model; --help tells what there is");

try {
  const from = versionFolder(model, values.models);
  const name = basename(dirname(from));
  const to = resolve(values.out ?? join(dirname(dirname(from)), `${name}-tfjs`, "1"));
  await writeTfjs(from, to);
  console.log(to);
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 1;
}
