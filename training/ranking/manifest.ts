/**
 * Asks the trained recommender for what was held out, through the server's kind, task and runtime, and writes
 * `manifest.json` and `MODEL_CARD.md` beside it. Fails if a bar is missed.
 *
 *     node training/ranking/manifest.ts --work DIR --out examples/models/films/1
 */
import "../../lib/engines/no-telemetry.ts";
import { readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { parseArgs } from "node:util";
import { InferenceSession, Tensor as OrtTensor } from "onnxruntime-node";
import type { Tensor, Tensors } from "../../lib/engines/tensors.ts";
import { type RankingPart, ranking } from "../../lib/kinds/ranking/kind.ts";
import { fileEntry } from "../../lib/models/manifest.ts";
import { createScope } from "../../lib/request/scope.ts";
import { type RankingTaskPart, rankingTask } from "../../lib/tasks/ranking.ts";
import { tellBars } from "../bars.ts";

/** What `train.py` reports. Shares are from 0 to 1. */
interface Training {
  readonly seed: number;
  readonly items: RankingTaskPart["items"];
  readonly history: number;
  readonly users: readonly string[];
  /** Of a person, on average. */
  readonly likes: number;
  readonly ridge: number;
  readonly popularityShare: number;
  readonly validation: { readonly recall: number; readonly popularity: number };
  /** Share of the known people who like each item, without what was held out. */
  readonly popularity: readonly number[];
  readonly known: People;
  readonly strangers: People;
}

/** Ids of items, a list for each person. */
interface People {
  readonly liked: readonly (readonly string[])[];
  readonly held: readonly (readonly string[])[];
}

const TOP = 10;
const FEW = 3;
const MAX_BATCH = 64;
/** How far processors may differ in a score. */
const TOLERANCE = 1e-3;

const { work, out } = parseArgs({
  options: { work: { type: "string", default: "" }, out: { type: "string", default: "" } },
}).values;
const dir = resolve(out);
const training = JSON.parse(readFileSync(resolve(work, "training.json"), "utf8")) as Training;
const { items, users, known, strangers, popularity } = training;
const weights = readFileSync(resolve(dir, "model.onnx"));
const session = await InferenceSession.create(weights, { intraOpNumThreads: 1 });

const kind: RankingPart = { name: "ranking", user: "user", history: "history", candidates: "candidates" };
const task: RankingTaskPart = {
  name: "ranking",
  output: "scores",
  eligible: "eligible",
  known: "known",
  items,
};
const inputs = [
  { name: "user", dtype: "string", shape: [1] },
  { name: "history", dtype: "string", shape: [training.history] },
  { name: "candidates", dtype: "string", shape: [items.length] },
] as const;
const outputs = [
  { name: "scores", dtype: "float32", shape: [items.length] },
  { name: "eligible", dtype: "float32", shape: [items.length] },
  { name: "known", dtype: "int32", shape: [2] },
] as const;
const preparer = await ranking.open({ maxBytes: 1 << 20 });
const wanted = ranking.wants(kind, inputs);
const scope = createScope({ deadline: Number.POSITIVE_INFINITY, requestId: "evaluation" });

type Request = Readonly<Record<string, unknown>>;

/** What the graph is given for a request, and what it makes of it; batches of one. */
async function run(request: Request): Promise<{ readonly given: Tensors; readonly made: Tensors }> {
  const input = { bytes: Buffer.from(JSON.stringify(request)), type: "application/json" };
  const given = ranking.collate([await preparer.prepare(input, wanted, scope)], kind, inputs);
  const feeds = Object.entries(given).map(([name, { dtype, data, shape }]) => {
    return [name, new OrtTensor(dtype, data as never, shape)] as const;
  });
  const made = Object.entries(await session.run(Object.fromEntries(feeds))).map(([name, tensor]) => {
    return [name, { dtype: tensor.type, shape: tensor.dims, data: tensor.data } as Tensor] as const;
  });
  return { given, made: Object.fromEntries(made) };
}

/** The first ten ids. */
async function rank(request: Request): Promise<readonly string[]> {
  const output = rankingTask.interpret((await run(request)).made, 0, task);
  return rankingTask.answer(output, { limit: TOP }, { items }).items.map(({ item }) => item);
}

/** The most popular ten that somebody has not liked yet. */
function mostPopular(liked: readonly string[]): readonly string[] {
  const order = items
    .map(({ id }, i) => ({ id, share: popularity[i] ?? 0 }))
    .sort((a, b) => b.share - a.share);
  return order
    .map(({ id }) => id)
    .filter((id) => !liked.includes(id))
    .slice(0, TOP);
}

/** Mean, over people, of the share of what was held out (ten at most) that is among the first ten. */
async function recall(
  { liked, held }: People,
  ranked: (liked: readonly string[], person: number) => readonly string[] | Promise<readonly string[]>,
): Promise<number> {
  let sum = 0;
  for (const [person, mine] of liked.entries()) {
    const first = await ranked(mine, person);
    const wanted = held[person] ?? [];
    sum += first.filter((id) => wanted.includes(id)).length / Math.min(TOP, wanted.length);
  }
  return sum / liked.length;
}

const scores = {
  known: await recall(known, (_, person) => rank({ user: users[person] })),
  knownPopular: await recall(known, mostPopular),
  strangers: await recall(strangers, (history) => rank({ history })),
  strangersPopular: await recall(strangers, mostPopular),
  // What else they liked is hidden from both, and so no candidate either.
  few: await recall(strangers, (liked) => rank({ history: liked.slice(0, FEW), candidates: others(liked) })),
  nothing: await recall(strangers, (liked) => rank({ candidates: others(liked) })),
};

function others(liked: readonly string[]): readonly string[] {
  return items.map(({ id }) => id).filter((id) => !liked.includes(id));
}

const EXAMPLES: readonly Request[] = [
  {},
  { user: users[0] },
  { user: "nobody", history: strangers.liked[0]?.slice(0, FEW) },
  { user: users[1], history: ["f001", "no such film"], candidates: ["f001", "f002", "f003", "nor this"] },
];

async function golden(request: Request) {
  const { given, made } = await run(request);
  const plain = (tensors: Tensors) =>
    Object.fromEntries(
      Object.entries(tensors).map(([name, { dtype, shape, data }]) => {
        const values = Array.from<unknown, unknown>(data, (x) =>
          typeof x === "number" && dtype === "float32" ? Number(x.toFixed(5)) : x,
        );
        return [name, { dtype, shape: shape.slice(1), data: values }];
      }),
    );
  return { inputs: plain(given), outputs: plain(made), tolerance: TOLERANCE };
}

const round = (share: number) => Number(share.toFixed(4));
const manifest = {
  $schema: "../../../../models/manifest.schema.json",
  manifest: 2,
  name: basename(dirname(dir)),
  version: Number(basename(dir)),
  format: "onnx",
  files: [fileEntry("model.onnx", weights)],
  inputs,
  outputs,
  maxBatch: MAX_BATCH,
  kind,
  task,
  golden: await Promise.all(EXAMPLES.map(golden)),
  licence: "MIT; trained on generated tastes, see MODEL_CARD.md",
  source: "trained from scratch by training/ranking/make.sh",
  accuracy: {
    recallAt10: round(scores.strangers),
    recallAt10Popularity: round(scores.strangersPopular),
  },
};
// Lists of values stand on one line: three hundred are nothing to read.
const json = JSON.stringify(manifest, null, 2)
  .replace(/\[(?:\s*(?:-?\d[\d.e-]*|"[^"]*"),?)+\s*\]/g, (list) => list.replace(/\s+/g, " "))
  .replace(/\{\s+"id": ("[^"]*"),\s+"title": ("[^"]*")\s+\}/g, '{ "id": $1, "title": $2 }');
writeFileSync(resolve(dir, "manifest.json"), `${json}\n`);
writeFileSync(resolve(dir, "MODEL_CARD.md"), card());
console.log(`${dir}: manifest.json and MODEL_CARD.md`);
checkBars();

/** The bars of `training/ranking/README.md`; a model below them must not be shipped unseen. */
function checkBars(): void {
  const bars: [string, boolean][] = [
    [
      `strangers, twice the popular (${scores.strangers.toFixed(4)})`,
      scores.strangers >= 2 * scores.strangersPopular,
    ],
    [`known people, twice the popular (${scores.known.toFixed(4)})`, scores.known >= 2 * scores.knownPopular],
    [
      `with nothing known as the popular (${scores.nothing.toFixed(4)})`,
      Math.abs(scores.nothing - scores.strangersPopular) < 0.001,
    ],
  ];
  tellBars(bars);
}

function card(): string {
  const count = (n: number) => n.toLocaleString("en");
  const row = (who: string, of: number, popular: number) =>
    `| ${who} | ${of.toFixed(3)} | ${popular.toFixed(3)} | ${(of / popular).toFixed(2)} |`;
  return `# ${manifest.name}, version ${manifest.version}

Ranks ${items.length} films for somebody, from what they liked. Written by \`training/ranking/manifest.ts\`; change that, not this.

**The films and the people do not exist.** Tastes were generated (\`training/ranking/tastes.py\`, seed ${training.seed}), since this repository has no data of real people whose licence would allow it. How good it is says that the method finds tastes where there are some, and nothing about films or people.

## Quality

recall@10: of what somebody liked and the model was not told of (ten at most), the share that is among the first ten it names; the mean over people. Beside it the ten most popular that they have not liked yet. Asked through the server's kind, task and runtime.

| | model | popularity | ratio |
| --- | --- | --- | --- |
${row(`known people, by their id alone (${count(known.liked.length)})`, scores.known, scores.knownPopular)}
${row(`strangers, by their history (${count(strangers.liked.length)})`, scores.strangers, scores.strangersPopular)}
${row(`strangers, by ${FEW} films they liked`, scores.few, scores.strangersPopular)}
${row("strangers, nothing known", scores.nothing, scores.strangersPopular)}

A fifth of what everybody liked was held out. Strangers are in no way part of training. The strength of the ridge (${training.ridge}) and the share of popularity (${training.popularityShare}) were chosen by ${count(1000)} other people, for whom the model reaches ${training.validation.recall.toFixed(3)} and popularity ${training.validation.popularity.toFixed(3)}.

## In and out

\`\`\`json
{ "user": "u0001", "history": ["f001", "f017"], "candidates": ["f002", "f003"], "limit": 10 }
\`\`\`

All are optional. It knows ${count(users.length)} people, \`${users[0]}\` to \`${users.at(-1)}\`, and what they liked; a history is added to that. Of a history the newest ${training.history} ids are read. Ids of no film are ignored; an unknown user is as good as none; with nothing known the most popular come first. What somebody liked is not ranked again. \`basedOn\` in the answer says how much of it was known.

## Limits

- It knows no film that is not in its catalogue, and no person who is not in its table: both are part of the graph, and new ones need training.
- Scores rank the films of one answer; they are no probabilities, and not to be compared between people.
- It holds what ${count(users.length)} (invented) people liked. A model like it of real people holds personal data.

## Recipe

\`training/ranking/make.sh\`: EASE (H. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019) on ${count(users.length)} people with ${training.likes.toFixed(1)} likes on average, in closed form; a second on one core.
`;
}
