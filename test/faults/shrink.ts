import { type Outcome, play, type Schedule } from "./world.ts";

/** What kind of rule was broken, without names and numbers. */
function kindOf(violation: string): string {
  return violation.replace(/[\w.-]*\d[\w.#-]*/g, "#");
}

/**
 * The shortest schedule found by leaving out steps that still breaks one of the same rules: first halves, then quarters,
 * down to single steps.
 */
export async function shrink(
  schedule: Schedule,
): Promise<{ readonly schedule: Schedule; readonly outcome: Outcome }> {
  let best = { schedule, outcome: await play(schedule) };
  const kinds = new Set(best.outcome.violations.map(kindOf));
  for (
    let size = Math.ceil(schedule.steps.length / 2);
    size >= 1;
    size = size === 1 ? 0 : Math.ceil(size / 2)
  ) {
    for (let at = 0; at < best.schedule.steps.length; ) {
      const steps = best.schedule.steps.toSpliced(at, size);
      const candidate = { ...best.schedule, steps };
      const outcome = await play(candidate);
      if (outcome.violations.some((violation) => kinds.has(kindOf(violation))))
        best = { schedule: candidate, outcome };
      else at += size;
    }
  }
  return best;
}
