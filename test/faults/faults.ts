import { parseArgs } from "node:util";
import { brokerUrl, releaseBroker } from "../../testkit/rabbitmq.ts";
import { prove } from "./prove.ts";
import { compareAll, tellDifference } from "./real.ts";
import { type Schedule, schedule } from "./schedule.ts";
import { shrink } from "./shrink.ts";
import { STORIES } from "./stories.ts";
import { play, RULES, type Violation } from "./world.ts";

const HELP = `Runs the transporter's own code against a model of RabbitMQ on a virtual clock, and lets chance choose what goes wrong: one
schedule for each seed. A seed that breaks a rule is told as a short story, and is the same every time.

    npm run faults -- --seeds 1000             what once went wrong, then seeds 1 to 1000
    npm run faults -- --seed 42                one, with its whole story
    npm run faults -- --prove                  takes each mechanism away and sees its rule fail
    npm run faults -- --real --seeds 100       does the same to the model and to a real RabbitMQ, by scripts of chance

  --seeds N      how many                                          1000
  --from N       the first                                         1
  --seed N       only this one
  --story NAME   only the stories that begin so, told
  --all          go on after a violation
  --no-shrink    tell the whole story
  --prove        see that the rules can fail
  --mutation NAME    with --prove: only this one
`;

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1000" },
    from: { type: "string", default: "1" },
    seed: { type: "string" },
    story: { type: "string" },
    prove: { type: "boolean", default: false },
    mutation: { type: "string" },
    real: { type: "boolean", default: false },
    all: { type: "boolean", default: false },
    "no-shrink": { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});

function describe({ rule, about }: Violation): string {
  return `${about}: ${RULES[rule]}`;
}

function whole(option: "seeds" | "from" | "seed"): number {
  const value = Number(values[option]);
  if (Number.isSafeInteger(value) && value >= 1) return value;
  throw new RangeError(`Expected --${option} to be a whole number from 1 but received "${values[option]}"`);
}

/** @returns whether no rule was broken */
async function tell(name: string, planned: Schedule, whole: boolean): Promise<boolean> {
  const { violations, story } = await play(planned);
  if (violations.length === 0) {
    if (whole) console.log(story.join("\n"));
    return true;
  }
  console.log(`${name}: ${violations.map(describe).join("; ")}`);
  if (values.all) return false;
  const short = values["no-shrink"]
    ? { schedule: planned, outcome: { violations, story } }
    : await shrink(planned);
  console.log(`${planned.steps.length} steps, shrunk to ${short.schedule.steps.length}:`);
  console.log(short.outcome.story.join("\n"));
  return false;
}

function* schedules(): Generator<readonly [name: string, schedule: Schedule]> {
  if (values.seed !== undefined) {
    yield [`seed ${whole("seed")}`, schedule(whole("seed"))];
    return;
  }
  for (const { name, schedule } of STORIES) if (name.startsWith(values.story ?? "")) yield [name, schedule];
  if (values.story !== undefined) return;
  const from = whole("from");
  for (let seed = from; seed < from + whole("seeds"); seed++) yield [`seed ${seed}`, schedule(seed)];
}

/** @returns whether RabbitMQ does what the model does */
async function compareWithReal(): Promise<boolean> {
  const url = await brokerUrl();
  const [from, count] = values.seed === undefined ? [whole("from"), whole("seeds")] : [whole("seed"), 1];
  const seeds = Array.from({ length: count }, (_, i) => from + i);
  const began = performance.now();
  try {
    const differences = await compareAll(seeds, url, !values.all);
    for (const difference of differences) console.log(tellDifference(difference));
    const seconds = ((performance.now() - began) / 1000).toFixed(0);
    console.log(`${count} scripts, ${differences.length} with differences, in ${seconds} s`);
    return differences.length === 0;
  } finally {
    await releaseBroker();
  }
}

async function main(): Promise<boolean> {
  if (values.real) return compareWithReal();
  if (values.prove) return prove(values.mutation, console.log);
  const began = performance.now();
  const told = values.seed !== undefined || values.story !== undefined;
  let [played, failed] = [0, 0];
  for (const [name, planned] of schedules()) {
    played++;
    if (await tell(name, planned, told)) continue;
    failed++;
    if (!values.all) break;
  }
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  console.log(`${played} schedules, ${failed} with violations, in ${seconds} s`);
  return played > 0 && failed === 0;
}

if (values.help) console.log(HELP);
else if (!(await main())) process.exitCode = 1;
