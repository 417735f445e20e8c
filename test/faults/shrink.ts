import type { Schedule } from "./schedule.ts";
import { type Outcome, play } from "./world.ts";

/**
 * The shortest schedule found by leaving out steps that still breaks one of the same rules: first halves, then quarters,
 * down to single steps.
 */
export async function shrink(
  schedule: Schedule,
): Promise<{ readonly schedule: Schedule; readonly outcome: Outcome }> {
  let best = { schedule, outcome: await play(schedule) };
  const rules = new Set(best.outcome.violations.map(({ rule }) => rule));
  for (
    let size = Math.ceil(schedule.steps.length / 2);
    size >= 1;
    size = size === 1 ? 0 : Math.ceil(size / 2)
  ) {
    for (let at = 0; at < best.schedule.steps.length; ) {
      const steps = best.schedule.steps.toSpliced(at, size);
      const candidate = { ...best.schedule, steps };
      const outcome = await play(candidate);
      if (outcome.violations.some(({ rule }) => rules.has(rule))) best = { schedule: candidate, outcome };
      else at += size;
    }
  }
  return best;
}
