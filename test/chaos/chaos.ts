import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { commandOptions } from "../../bin/cli.ts";
import { EVENTS } from "./events.ts";
import { isMechanism, MECHANISMS, type MechanismName } from "./mechanisms.ts";
import { type Bar, header, isWrong, line, mayRepeat, type Outcome } from "./report.ts";
import { type ChaosEvent, Rig, type RigOptions } from "./rig.ts";

/**
 * Breaks a cluster of real processes under steady load and says what its clients noticed. Exits with 1 when a bar is
 * missed.
 */
const USAGE = `
npm run chaos -- [options]

Breaks a cluster of real processes under steady load and says what its clients noticed. All events, or:

  --only NAME       one; may be repeated
  --short           shorter phases
  --tries N         an event that was only too slow is run again, up to that often in all: for machines whose time others
                    take; never after a lost or wrong answer (1)
  --json            the last line is one JSON object
  --without NAME    with a protecting mechanism off: now bars must be missed
  --prove           each event with its mechanism off; exits with 1 unless just the bar is missed that the mechanism
                    protects
`;
const OPTIONS = {
  only: { type: "string", multiple: true },
  without: { type: "string" },
  short: { type: "boolean", default: false },
  json: { type: "boolean", default: false },
  prove: { type: "boolean", default: false },
  tries: { type: "string", default: "1" },
} as const;

async function main(): Promise<boolean> {
  const values = commandOptions(USAGE, OPTIONS);
  const { short, json, prove, without } = values;
  if (without !== undefined && !isMechanism(without))
    throw unknown("without", Object.keys(MECHANISMS), without);
  const events = chosen(values.only);
  const tries = Number(values.tries);
  if (!(Number.isInteger(tries) && tries >= 1))
    throw new RangeError(`Expected --tries to be a positive integer but received "${values.tries}"`);
  const toMiss = ({ event }: Outcome) => (prove ? protectedBar(event) : undefined);
  const began = performance.now();
  const logs = await mkdtemp(join(tmpdir(), "chaos-logs-"));
  const print = (text: string) => console.log(text);

  print(header());
  const outcomes: Outcome[] = [];
  const groups: Partial<Record<MechanismName | "", ChaosEvent[]>> = prove
    ? Object.groupBy(
        events.filter(({ protectedBy }) => protectedBy),
        ({ protectedBy }) => protectedBy?.mechanism ?? "",
      )
    : { [without ?? ""]: [...events] };
  for (const [mechanism, group = []] of Object.entries(groups)) {
    if (isMechanism(mechanism)) print(`without ${mechanism}: ${MECHANISMS[mechanism].about}`);
    outcomes.push(
      ...(await runAll(
        group,
        { short, logs, ...(isMechanism(mechanism) ? { without: mechanism } : {}) },
        (outcome, attempt) =>
          attempt < tries && isWrong(outcome, toMiss(outcome)) && mayRepeat(outcome, toMiss(outcome)),
      )),
    );
  }

  const run = outcomes.filter(({ skipped }) => skipped === undefined);
  const wrong = run.filter((outcome) => isWrong(outcome, toMiss(outcome)));
  const ok = wrong.length === 0;
  const seconds = Math.round((performance.now() - began) / 1000);
  const names = wrong.map(({ event }) => event).join(", ");
  print(
    `${run.length} events in ${seconds} s: ${ok ? "as it must be" : `${prove ? "not proven" : "missed"}: ${names}`}`,
  );
  if (ok) await rm(logs, { recursive: true });
  else print(`logs: ${logs}`);
  if (json) print(JSON.stringify({ ok, prove, without: without ?? null, short, seconds, events: outcomes }));
  return ok;
}

/** The one that the event's mechanism protects. */
function protectedBar(name: string): Bar | undefined {
  return EVENTS.find((event) => event.name === name)?.protectedBy?.bar;
}

async function runAll(
  events: readonly ChaosEvent[],
  options: Omit<RigOptions, "members">,
  again: (outcome: Outcome, attempt: number) => boolean,
): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  const bySize = Map.groupBy(events, ({ members = 1 }) => members);
  for (const [members, group] of bySize)
    outcomes.push(...(await runOn(group, { ...options, members }, again)));
  return outcomes;
}

async function runOn(
  events: readonly ChaosEvent[],
  options: RigOptions,
  again: (outcome: Outcome, attempt: number) => boolean,
): Promise<Outcome[]> {
  const rig = await Rig.start(options);
  try {
    const outcomes: Outcome[] = [];
    for (const event of events) {
      for (let attempt = 1; ; attempt++) {
        const outcome = await rig.run(event);
        console.log(line(outcome));
        if (again(outcome, attempt)) continue;
        outcomes.push(outcome);
        break;
      }
    }
    return outcomes;
  } finally {
    await rig.stop();
  }
}

function chosen(names: readonly string[] | undefined): readonly ChaosEvent[] {
  if (!names) return EVENTS;
  return names.map((name) => {
    const event = EVENTS.find((candidate) => candidate.name === name);
    if (!event)
      throw unknown(
        "only",
        EVENTS.map((each) => each.name),
        name,
      );
    return event;
  });
}

function unknown(option: string, known: readonly string[], received: string): RangeError {
  return new RangeError(`Expected --${option} to be one of ${known.join(", ")} but received "${received}"`);
}

// What was started is ended by `exit` listeners.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130));
try {
  process.exitCode = (await main()) ? 0 : 1;
} catch (error) {
  const isUsage =
    error instanceof RangeError || /^ERR_PARSE_ARGS/.test((error as { code?: string }).code ?? "");
  console.error(isUsage ? (error as Error).message : error);
  process.exitCode = 1;
}
