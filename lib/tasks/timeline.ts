import { z } from "zod";
import type { WireError } from "../errors.ts";
import type { Task } from "./task.ts";

/** What models said of one moment. */
export interface Moment {
  readonly atSeconds: number;
  /** By model service: its task's answer, or why there is none. */
  readonly answers: Readonly<Record<string, MomentAnswer>>;
}

/** A yes/no answer, if `answer` and `probability` are there; other tasks' answers are passed on as they are. */
export type MomentAnswer = Readonly<Record<string, unknown>> & {
  readonly answer?: boolean;
  readonly probability?: number;
  readonly error?: WireError;
};

/** What a model says of a whole clip. */
export interface Summary {
  /** Yes in at least half of the moments. */
  readonly answer: boolean;
  /** Moments with an answer, and with a yes. */
  readonly moments: number;
  readonly yes: number;
  /** When it was most likely. */
  readonly likeliest: { readonly atSeconds: number; readonly probability: number };
  /** Runs of moments with a yes, from the first to the last of each. */
  readonly spans: readonly { readonly fromSeconds: number; readonly toSeconds: number }[];
}

export interface Timeline {
  readonly moments: readonly Moment[];
  /** By model service; of those that answer questions with yes or no. */
  readonly summary: Readonly<Record<string, Summary>>;
}

const part = z.strictObject({ name: z.literal("timeline") });

/** Answers over time. What is said rests on other models, and is gone when they change: nothing of it is kept. */
export const timeline: Task<
  Readonly<z.infer<typeof part>>,
  object,
  undefined,
  null,
  readonly Moment[],
  Timeline
> = {
  name: "timeline",
  kept: false,
  part,
  contradictions: () => [],
  needs: () => [],
  spec: () => ({}),
  ask: z.undefined("nothing"),
  question: () => null,

  interpret() {
    throw new Error("A timeline comes of no network");
  },

  answer(moments) {
    if (!Array.isArray(moments)) throw new Error("Expected a list of moments");
    const models = new Set(moments.flatMap(({ answers }) => Object.keys(answers)));
    const summaries = [...models].flatMap((model) => {
      const summary = summaryOf(moments, model);
      return summary ? [[model, summary] as const] : [];
    });
    return { moments, summary: Object.fromEntries(summaries) };
  },
};

/** Undefined: the model gave no yes and no no. */
function summaryOf(moments: readonly Moment[], model: string): Summary | undefined {
  const spans: { fromSeconds: number; toSeconds: number }[] = [];
  let likeliest: Summary["likeliest"] | undefined;
  let [count, yes, within] = [0, 0, false];
  for (const { atSeconds, answers } of moments) {
    const { answer, probability } = answers[model] ?? {};
    if (typeof answer !== "boolean" || typeof probability !== "number") continue;
    count += 1;
    if (!likeliest || probability > likeliest.probability) likeliest = { atSeconds, probability };
    const span = spans.at(-1);
    if (answer) {
      yes += 1;
      if (within && span) span.toSeconds = atSeconds;
      else spans.push({ fromSeconds: atSeconds, toSeconds: atSeconds });
    }
    within = answer;
  }
  return likeliest && { answer: 2 * yes >= count, moments: count, yes, likeliest, spans };
}
