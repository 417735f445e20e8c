import { type Moment, timeline } from "../../../../lib/tasks/timeline.ts";

const at = (atSeconds: number, probability: number): Moment => ({
  atSeconds,
  answers: { cat: { answer: probability >= 0.5, probability } },
});

const summary = (...moments: Moment[]) => timeline.answer(moments, null, {}).summary["cat"];

describe("the summary of a clip", () => {
  test("joins moments with a yes to spans, and names the likeliest", () => {
    expect(summary(at(0, 0.9), at(1, 0.7), at(2, 0.1), at(3, 0.95))).toEqual({
      answer: true,
      moments: 4,
      yes: 3,
      likeliest: { atSeconds: 3, probability: 0.95 },
      spans: [
        { fromSeconds: 0, toSeconds: 1 },
        { fromSeconds: 3, toSeconds: 3 },
      ],
    });
  });

  test("is yes from half of the moments on", () => {
    expect(summary(at(0, 0.9), at(1, 0.1))?.answer).toBe(true);
    expect(summary(at(0, 0.9), at(1, 0.1), at(2, 0.1))?.answer).toBe(false);
    expect(summary(at(0, 0.1))).toMatchObject({ yes: 0, spans: [], likeliest: { probability: 0.1 } });
  });

  test("counts the moments that have an answer", () => {
    const failed: Moment = {
      atSeconds: 1,
      answers: { cat: { error: { code: "QUEUE_FULL", message: "", retryable: true } } },
    };
    expect(summary(at(0, 0.9), failed, at(2, 0.9))).toMatchObject({
      moments: 2,
      yes: 2,
      spans: [{ fromSeconds: 0, toSeconds: 2 }],
    });
  });

  test("is of models alone that say yes or no", () => {
    const moments = [{ atSeconds: 0, answers: { depth: { outputs: { y: [1] } } } }];
    expect(timeline.answer(moments, null, {})).toEqual({ moments, summary: {} });
    expect(timeline.answer([], null, {})).toEqual({ moments: [], summary: {} });
  });
});

test("what rests on other models is not kept, and is no network's output", () => {
  expect(timeline.kept).toBe(false);
  expect(() => timeline.interpret({}, 0, { name: "timeline" })).toThrow();
});
