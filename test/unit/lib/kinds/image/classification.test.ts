import fc from "fast-check";
import { classify, softmax } from "../../../../../lib/kinds/image/classification.ts";

const labels = ["cat", "dog", "other"];

describe("classify", () => {
  test("answers yes when the group holds the threshold", () => {
    const answer = classify(Float32Array.from([4, 0, 0]), { labels, group: [0], threshold: 0.5 });
    expect(answer).toMatchObject({ answer: true, label: "cat" });
    expect(answer.probability).toBeCloseTo(Math.exp(4) / (Math.exp(4) + 2), 5);
  });

  test("the most probable label may lie outside of the group", () => {
    const answer = classify(Float32Array.from([0, 4, 0]), { labels, group: [0], threshold: 0.5 });
    expect(answer).toMatchObject({ answer: false, label: "dog" });
  });

  test("a group of many labels answers with their sum", () => {
    const answer = classify(Float32Array.from([1, 1, 1]), { labels, group: [0, 1], threshold: 0.5 });
    expect(answer.probability).toBeCloseTo(2 / 3, 5);
    expect(answer.answer).toBe(true);
  });

  test("shows at most five labels, the most probable first", () => {
    const logits = Float32Array.from({ length: 9 }, (_, i) => i);
    const names = [...logits].map((i) => `l${i}`);
    const shown = classify(logits, { labels: names, group: [0], threshold: 0.5 }).labels;
    expect(shown.map(({ label }) => label)).toEqual(["l8", "l7", "l6", "l5", "l4"]);
  });

  test("probabilities sum to one, whatever the logits", () => {
    const logit = fc.float({ noNaN: true, noDefaultInfinity: true });
    fc.assert(
      fc.property(fc.array(logit, { minLength: 1, maxLength: 50 }), (logits) => {
        const sum = softmax(Float32Array.from(logits)).reduce((a, b) => a + b, 0);
        expect(sum).toBeCloseTo(1, 3);
      }),
    );
  });
});
