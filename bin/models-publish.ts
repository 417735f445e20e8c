import { publish } from "../lib/models/publish.ts";
import { commandLine, misused } from "./cli.ts";

const USAGE = `
Puts a version of a model into a folder of models, there at once as a whole, and writes the model's index.json:

    npm run models:publish -- <version's folder>

    <version's folder>  with manifest.json, as models/pets-resnet/1
    --to DIR            folder of the models [models]
    --version N         its number there [one more than the newest]
`;

const { values, positionals } = commandLine(
  USAGE,
  {
    to: { type: "string", default: process.env["MODELS_DIR"] ?? "models" },
    version: { type: "string" },
  },
  1,
);
const [from] = positionals;
if (!from) misused("Expected a version's folder; --help tells what there is");
const { to, version } = values;
if (version !== undefined && !/^[1-9]\d{0,8}$/.test(version)) {
  misused(`Expected a whole number of at least 1 for --version but received "${version}"`);
}
try {
  console.log(await publish({ from, to, version: version === undefined ? undefined : Number(version) }));
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 1;
}
