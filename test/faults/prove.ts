import { loadMutations, MUTATIONS, type Mutation } from "./mutations.ts";
import { type Schedule, schedule } from "./schedule.ts";
import { STORIES } from "./stories.ts";
import { RULES } from "./world.ts";

/** A mechanism that no schedule among so many misses is not tested. */
const MOST_SEEDS = 1500;

/** What a mutation is tried with, each under its name. */
function* attempts({ story, seed: known }: Mutation): Generator<readonly [name: string, schedule: Schedule]> {
  if (known !== undefined) yield [`seed ${known}`, schedule(known)];
  if (story === undefined) {
    for (let seed = 1; seed <= MOST_SEEDS; seed++) yield [`seed ${seed}`, schedule(seed)];
    return;
  }
  const told = STORIES.filter(({ name }) => name.startsWith(story));
  if (told.length !== 1)
    throw new Error(`Expected one story that begins "${story}" but found ${told.length}`);
  for (const { name, schedule } of told) yield [`"${name}"`, schedule];
}

/**
 * Takes each mechanism away and looks for a schedule that breaks its rule.
 * @returns whether every rule was seen to fail, each for its mechanism
 */
export async function prove(only: string | undefined, print: (line: string) => void): Promise<boolean> {
  loadMutations();
  const unproven = new Set(Object.keys(RULES));
  let good = true;
  for (const [name, mutation] of Object.entries(MUTATIONS)) {
    if (only !== undefined && name !== only) continue;
    const { play } = (await import(`./world.ts?mutation=${name}`)) as typeof import("./world.ts");
    let shownBy: string | undefined;
    const others = new Set<string>();
    for (const [attempt, planned] of attempts(mutation)) {
      const { violations } = await play(planned);
      for (const { rule } of violations) others.add(rule);
      if (!violations.some(({ rule }) => rule === mutation.breaks)) continue;
      shownBy = attempt;
      break;
    }
    if (shownBy) unproven.delete(mutation.breaks);
    else good = false;
    const found = shownBy ?? `NOTHING${others.size > 0 ? `, but ${[...others].join(", ")}` : ""}`;
    print(`${name.padEnd(16)} ${RULES[mutation.breaks].padEnd(34)} ${found}`);
  }
  if (only === undefined && unproven.size > 0) {
    print(`No mechanism was seen to keep: ${[...unproven].join(", ")}`);
    good = false;
  }
  return good;
}
