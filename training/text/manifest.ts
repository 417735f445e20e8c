/**
 * Asks the trained model about the messages that were held out, through the server's tokenizer and runtime, and writes
 * `manifest.json` and `MODEL_CARD.md` beside it. Fails if a bar is missed.
 *
 *     node training/text/manifest.ts --work DIR --out examples/models/spam-sms/1
 */
import "../../lib/engines/no-telemetry.ts";
import { readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { parseArgs } from "node:util";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { type HashedNgrams, tokenize } from "../../lib/kinds/text/tokenizer.ts";
import { fileEntry } from "../../lib/models/manifest.ts";
import { tellBars } from "../bars.ts";

/** What `train.py` reports. Shares are from 0 to 1. */
interface Training {
  readonly tokenizer: HashedNgrams;
  readonly seed: number;
  readonly messages: number;
  readonly spam: number;
  readonly groups: number;
  readonly penalty: number;
  readonly threshold: number;
  readonly truncated: number;
  readonly validation: Omit<Scores, "counts">;
  readonly heldOut: readonly { readonly text: string; readonly spam: boolean }[];
}

interface Scores {
  readonly accuracy: number;
  /** Of spam. */
  readonly recall: number;
  /** Of ham. */
  readonly falsePositives: number;
  readonly counts: Readonly<Record<"ham" | "spam" | "falseAlarms" | "missed", number>>;
}

/** Written for this, not taken from the data. */
const EXAMPLES = [
  "",
  "Are you home for dinner tonight? I'll bring the salad",
  "CONGRATULATIONS! You have won a £500 voucher. To claim call 09061234567 now or text WIN to 80082. 18+ only",
  "今日は何時に帰りますか 🙂",
];
/** How far processors may differ in a logit. */
const TOLERANCE = 1e-3;
const MAX_BATCH = 256;

const { work, out } = parseArgs({
  options: { work: { type: "string", default: "" }, out: { type: "string", default: "" } },
}).values;
const dir = resolve(out);
const training = JSON.parse(readFileSync(resolve(work, "training.json"), "utf8")) as Training;
const { tokenizer, threshold, heldOut, validation } = training;
const weights = readFileSync(resolve(dir, "model.onnx"));
const session = await InferenceSession.create(weights, { intraOpNumThreads: 1 });

/** `[ham, spam]` of a text, and what the graph was given. */
async function run(text: string): Promise<{ readonly ids: Int32Array; readonly logits: Float32Array }> {
  const ids = tokenize(text, tokenizer);
  const { logits } = await session.run({ ids: new Tensor("int32", ids, [1, ids.length]) });
  if (!(logits?.data instanceof Float32Array)) throw new Error("The graph gave no float32 output `logits`");
  return { ids, logits: logits.data };
}

async function isSpam(text: string): Promise<boolean> {
  const [ham = 0, spam = 0] = (await run(text)).logits;
  return 1 / (1 + Math.exp(ham - spam)) >= threshold;
}

async function evaluate(): Promise<Scores> {
  const counts = { ham: 0, spam: 0, falseAlarms: 0, missed: 0 };
  for (const { text, spam } of heldOut) {
    const said = await isSpam(text);
    counts[spam ? "spam" : "ham"]++;
    if (said && !spam) counts.falseAlarms++;
    if (!said && spam) counts.missed++;
  }
  return {
    accuracy: 1 - (counts.falseAlarms + counts.missed) / heldOut.length,
    recall: 1 - counts.missed / counts.spam,
    falsePositives: counts.falseAlarms / counts.ham,
    counts,
  };
}

async function golden(text: string) {
  const { ids, logits } = await run(text);
  return {
    inputs: { ids: { dtype: "int32", shape: [ids.length], data: [...ids] } },
    outputs: {
      logits: {
        dtype: "float32",
        shape: [logits.length],
        data: [...logits].map((x) => Number(x.toFixed(5))),
      },
    },
    tolerance: TOLERANCE,
  };
}

const scores = await evaluate();
const round = (share: number) => Number(share.toFixed(4));
const percent = (share: number) => (100 * share).toFixed(2);
const manifest = {
  $schema: "../../../../models/manifest.schema.json",
  manifest: 2,
  name: basename(dirname(dir)),
  version: Number(basename(dir)),
  format: "onnx",
  files: [fileEntry("model.onnx", weights)],
  inputs: [{ name: "ids", dtype: "int32", shape: [tokenizer.length] }],
  outputs: [{ name: "logits", dtype: "float32", shape: [2] }],
  maxBatch: MAX_BATCH,
  kind: { name: "text", tokenizer },
  task: {
    name: "classification",
    output: "logits",
    activation: "softmax",
    labels: ["ham", "spam"],
    groups: { spam: [1] },
  },
  golden: await Promise.all(EXAMPLES.map(golden)),
  licence: "MIT; trained on the SMS Spam Collection v.1 (CC BY 4.0), see MODEL_CARD.md",
  source: "trained from scratch by training/text/make.sh",
  accuracy: { accuracy: round(scores.accuracy), spamRecall: round(scores.recall) },
};
// Numbers stand on one line: a thousand ids are nothing to read.
const json = JSON.stringify(manifest, null, 2).replace(/\[[-\d.,\s]+\]/g, (list) =>
  list.replace(/\s+/g, " "),
);
writeFileSync(resolve(dir, "manifest.json"), `${json}\n`);
writeFileSync(resolve(dir, "MODEL_CARD.md"), card());
console.log(`${dir}: manifest.json and MODEL_CARD.md`);
checkBars();

/** The bars of `training/text/README.md`; a model below them must not be shipped unseen. */
function checkBars(): void {
  const bars: [string, boolean][] = [
    [`accuracy of at least 98 % (${percent(scores.accuracy)})`, scores.accuracy >= 0.98],
    [`spam recall of at least 0.92 (${scores.recall.toFixed(4)})`, scores.recall >= 0.92],
    [
      `at most 0.5 % of ham taken for spam (${percent(scores.falsePositives)})`,
      scores.falsePositives <= 0.005,
    ],
  ];
  tellBars(bars);
}

/** 95 % interval of a share of `n` (Wilson 1927), in percent. */
function interval(share: number, n: number): string {
  const z = 1.96;
  const centre = (share + z ** 2 / (2 * n)) / (1 + z ** 2 / n);
  const half = (z * Math.sqrt((share * (1 - share)) / n + z ** 2 / (4 * n ** 2))) / (1 + z ** 2 / n);
  return `${percent(centre - half)}–${percent(centre + half)}`;
}

function card(): string {
  const { ham, spam, falseAlarms, missed } = scores.counts;
  return `# ${manifest.name}, version ${manifest.version}

Says of a short English text message whether it is spam. Written by \`training/text/manifest.ts\`; change that, not this.

## Model

A linear model over hashed n-grams, trained from scratch. \`model.onnx\` (${(weights.length / 1e3).toFixed(0)} kB): input \`ids\`, \`[n, ${tokenizer.length}]\` int32, 0 is padding; output \`logits\`, \`[n, 2]\` float32, ham and spam; softmax makes probabilities of them.
The tokenizer stands in the manifest (\`lib/kinds/text/tokenizer.ts\`): single words, pairs of words and runs of ${tokenizer.characters.join(", ")} characters, in lower case, every digit a 0, hashed into ${tokenizer.buckets.toLocaleString("en")} buckets; the first ${tokenizer.length.toLocaleString("en")} different ones count. That is about the first 115 words: ${percent(training.truncated)} % of the messages are longer.

## Accuracy

On ${heldOut.length.toLocaleString("en")} messages (${ham} ham, ${spam} spam) that training never saw, through the server's tokenizer and runtime. Spam from a probability of ${threshold} on. In percent:

| | held out | 95 % interval | cross-validation, where the threshold was chosen |
| --- | --- | --- | --- |
| right | ${percent(scores.accuracy)} | ${interval(scores.accuracy, heldOut.length)} | ${percent(validation.accuracy)} |
| spam found (${spam - missed} of ${spam}) | ${percent(scores.recall)} | ${interval(scores.recall, spam)} | ${percent(validation.recall)} |
| ham taken for spam (${falseAlarms} of ${ham}) | ${percent(scores.falsePositives)} | ${interval(scores.falsePositives, ham)} | ${percent(validation.falsePositives)} |

A quarter of the messages was held out by seed ${training.seed}. Messages of which half of all their runs of five letters are the same (digits count as one) stand on one side only: the ${training.messages.toLocaleString("en")} messages are ${training.groups.toLocaleString("en")} such groups. Strength of the penalty, calibration and threshold come from five-fold cross-validation over the other messages, groups kept together; nothing was chosen by the held-out ones.

## Intended use and limits

For trying and testing this server.
- The messages are from Britain and Singapore, before 2012, in English. Today's spam (links, parcels, messengers) was rare or absent; in other languages and scripts the answer means little, and is mostly "no".
- It adds up evidence and understands nothing: a friend who writes about a prize may be taken for spam, and whoever knows the model can write past it.
- Only the start of a long text counts, see above.
- An empty message is no spam.
- Probabilities are calibrated on messages like these.

## Data

SMS Spam Collection v.1 (T. A. Almeida, J. M. Gómez Hidalgo, A. Yamakami: "Contributions to the Study of SMS Spam Filtering: New Collection and Results", DocEng 2011; UCI Machine Learning Repository), CC BY 4.0; ${training.messages.toLocaleString("en")} of its 5,574 messages, ${training.spam} of them spam. None of them is part of this repository.

## Recipe

\`training/text/make.sh\`: logistic regression (C = ${training.penalty}) over the n-grams of a message, each worth 1/√(their number), weighted by idf, which is folded into the weights; Platt scaling.
`;
}
