import { parseArgs } from "node:util";
import { schedule } from "./schedule.ts";
import { shrink } from "./shrink.ts";
import { play, RULES, type Violation } from "./world.ts";

const HELP = `Runs the transporter's own code against a model of RabbitMQ on a virtual clock, and lets chance choose what goes wrong: one
schedule for each seed. A seed that breaks a rule is told as a short story, and is the same every time.

    npm run faults -- --seeds 1000             seeds 1 to 1000
    npm run faults -- --seed 42                one, with its whole story

  --seeds N      how many                                          1000
  --from N       the first                                         1
  --seed N       only this one
  --all          go on after a violation
  --no-shrink    tell the whole story
`;

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1000" },
    from: { type: "string", default: "1" },
    seed: { type: "string" },
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

if (values.help) {
  console.log(HELP);
} else {
  const [from, count] = values.seed === undefined ? [whole("from"), whole("seeds")] : [whole("seed"), 1];
  const began = performance.now();
  const failed: number[] = [];
  for (let seed = from; seed < from + count; seed++) {
    const planned = schedule(seed);
    const { violations, story } = await play(planned);
    if (violations.length === 0) {
      if (values.seed !== undefined) console.log(story.join("\n"));
      continue;
    }
    failed.push(seed);
    console.log(`seed ${seed}: ${violations.map(describe).join("; ")}`);
    if (values.all) continue;
    const short = values["no-shrink"]
      ? { schedule: planned, outcome: { violations, story } }
      : await shrink(planned);
    console.log(`${planned.steps.length} steps, shrunk to ${short.schedule.steps.length}:`);
    console.log(short.outcome.story.join("\n"));
    break;
  }
  const seconds = (performance.now() - began) / 1000;
  console.log(
    `${failed.length === 0 ? `${count} seeds` : `${failed.length} seeds with violations`} in ${seconds.toFixed(1)} s`,
  );
  if (failed.length > 0) process.exitCode = 1;
}
