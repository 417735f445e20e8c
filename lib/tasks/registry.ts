import { classification, classificationPart } from "./classification.ts";
import { rankingTask, rankingTaskPart } from "./ranking.ts";
import type { Task } from "./task.ts";
import { tensorTask, tensorTaskPart } from "./tensor.ts";
import { timeline } from "./timeline.ts";

/** The parts of a manifest that say what its model's outputs mean. */
export const TASK_PARTS = [classificationPart, rankingTaskPart, tensorTaskPart] as const;

const TASKS: readonly Task[] = [classification, rankingTask, tensorTask, timeline];

/** @throws Error if there is no such task */
export function taskOf(name: string): Task {
  const task = TASKS.find((each) => each.name === name);
  if (task) return task;
  throw new Error(`Expected a task of ${TASKS.map((each) => each.name).join(", ")} but received "${name}"`);
}
