import { basename } from "node:path";
import { nearest } from "../lib/check.ts";
import { DownloadError } from "../lib/models/download.ts";
import { mirror, ORIGINS, pull, ZOO, type ZooFile } from "../lib/models/zoo.ts";
import { commandLine, misused } from "./cli.ts";

const USAGE = `
Fetches an ImageNet classifier of the ONNX model zoo, checks it, and writes its manifest:

    npm run models:pull -- resnet50            then: MODEL=resnet50 npm start

    ${Object.entries(ZOO)
      .map(
        ([name, { file, accuracy }]) =>
          `${name.padEnd(14)} ${megabytes(file.bytes).padStart(6)} MB  top-1 ${(100 * accuracy.top1).toFixed(1)} %`,
      )
      .join("\n    ")}

    --from URL      a mirror with the files in one folder, instead of the zoo's own places
    --file PATH     the model's file, if it is here already
    --labels PATH   the zoo's synset.txt, if it is here already
    --models DIR    where to [models]
`;

const { values, positionals } = commandLine(
  USAGE,
  {
    from: { type: "string" },
    file: { type: "string" },
    labels: { type: "string" },
    models: { type: "string", default: process.env["MODELS_DIR"] ?? "models" },
  },
  1,
);
const [name = ""] = positionals;
const model = Object.hasOwn(ZOO, name) ? ZOO[name] : undefined;
if (!model) {
  const near = nearest(name, Object.keys(ZOO));
  const hint = near ? `: did you mean "${near}"?` : "";
  misused(`Expected one of ${Object.keys(ZOO).join(", ")} but received "${name}"${hint}`);
}
if (values.from !== undefined && !/^https?:\/\//.test(values.from)) {
  misused(`Expected a URL of http or https for --from but received "${values.from}"`);
}

const giveUp = new AbortController();
process.once("SIGINT", () => giveUp.abort(new Error("Given up; the next call goes on from here")));

try {
  const dir = await pull({
    name,
    model,
    modelsDir: values.models,
    origins: values.from === undefined ? ORIGINS : [mirror(values.from)],
    files: {
      ...(values.file === undefined ? {} : { [model.file.name]: values.file }),
      ...(values.labels === undefined ? {} : { [model.classes.name]: values.labels }),
    },
    onProgress: progress(),
    download: { signal: giveUp.signal },
  });
  console.log(`${dir} is complete. To ask it: MODEL=${basename(name)} npm start`);
} catch (error) {
  if (process.stderr.isTTY) process.stderr.write("\n");
  const known =
    error instanceof DownloadError || giveUp.signal.aborted || (error as NodeJS.ErrnoException).code;
  console.error(known ? (error as Error).message : error);
  if (error instanceof DownloadError && !giveUp.signal.aborted) {
    console.error(
      "What is here already: --file for the model, --labels for synset.txt. Another place: --from URL",
    );
  }
  process.exitCode = 1;
}

/** A bar that moves on a terminal; a line for each tenth elsewhere. */
function progress(): (file: ZooFile, done: number) => void {
  const WIDTH = 30;
  const began = performance.now();
  let [last, drawn] = ["", 0];
  return ({ name: file, bytes }, done) => {
    const share = Math.min(1, done / bytes);
    const now = performance.now();
    if (process.stderr.isTTY) {
      if (now - drawn < 100 && share < 1) return;
      drawn = now;
      const bar = "█".repeat(Math.round(share * WIDTH)).padEnd(WIDTH, "░");
      const rate = megabytes((1000 * done) / Math.max(1, now - began));
      process.stderr.write(
        `\r${file} ${bar} ${megabytes(done)}/${megabytes(bytes)} MB, ${rate} MB/s ${share === 1 ? "\n" : ""}`,
      );
      return;
    }
    const line = `${file}: ${10 * Math.floor(10 * share)} % of ${megabytes(bytes)} MB`;
    if (line !== last) console.error(line);
    last = line;
  };
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}
