import fc from "fast-check";
import type { Tensors } from "../../../../lib/engines/tensors.ts";
import {
  type ClassificationPart,
  type ClassificationQuestion,
  classification,
  softmax,
} from "../../../../lib/tasks/classification.ts";

const labels = ["cat", "dog", "other"];

const part = (more: Partial<ClassificationPart> = {}): ClassificationPart => ({
  name: "classification",
  output: "logits",
  activation: "softmax",
  labels,
  groups: { cat: [0], pet: [0, 1] },
  ...more,
});

function batch(...rows: number[][]): Tensors {
  return {
    logits: {
      dtype: "float32",
      shape: [rows.length, rows[0]?.length ?? 0],
      data: Float32Array.from(rows.flat()),
    },
  };
}

const ask = (logits: number[], question: ClassificationQuestion, names = labels) =>
  classification.answer(classification.interpret(batch(logits), 0, part({ labels: names })), question, {
    labels: names,
  });

describe("the answer of a classifier", () => {
  test("is yes when the group holds the threshold", () => {
    const answer = ask([4, 0, 0], { group: [0], threshold: 0.5 });
    expect(answer.answer).toBe(true);
    expect(answer.probability).toBeCloseTo(Math.exp(4) / (Math.exp(4) + 2), 5);
  });

  test("has the question's probability, and the network's labels whatever the question", () => {
    const answer = ask([0, 4, 0], { group: [0], threshold: 0.5 });
    expect(answer.answer).toBe(false);
    expect(answer.probability).toBeLessThan(0.1);
    expect(answer.labels[0]).toMatchObject({ label: "dog" });
    expect(answer).not.toHaveProperty("label");
  });

  test("to a group of many labels is their sum", () => {
    const answer = ask([1, 1, 1], { group: [0, 1], threshold: 0.5 });
    expect(answer.probability).toBeCloseTo(2 / 3, 5);
    expect(answer.answer).toBe(true);
  });

  test("shows at most five labels, the most probable first", () => {
    const names = Array.from({ length: 9 }, (_, i) => `l${i}`);
    const { labels: shown } = ask(
      names.map((_, i) => i),
      { group: [0], threshold: 0.5 },
      names,
    );
    expect(shown.map(({ label }) => label)).toEqual(["l8", "l7", "l6", "l5", "l4"]);
  });

  test("has no more digits than mean something, and is never rounded to a certainty", () => {
    const answer = ask([0.123456789, 0, 0], { group: [0], threshold: 0.5 });
    expect(JSON.stringify(answer)).not.toMatch(/0\.\d{8}/);
    const sure = classification.answer(
      Float32Array.of(0.9999998, 0, 0),
      { group: [0], threshold: 0.5 },
      { labels },
    );
    expect(sure.probability).toBeLessThan(1);
  });
});

describe("the output of a classifier", () => {
  test("is that of the item, of many in a batch", () => {
    const two = batch([4, 0, 0], [0, 4, 0]);
    const [first, second] = [0, 1].map((i) => classification.interpret(two, i, part()));
    expect([first?.indexOf(Math.max(...first)), second?.indexOf(Math.max(...second))]).toEqual([0, 1]);
  });

  test("is taken as it is when the graph has made probabilities already", () => {
    const output = classification.interpret(batch([0.5, 0.25, 0.25]), 0, part({ activation: "none" }));
    expect([...output]).toEqual([0.5, 0.25, 0.25]);
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY])("of %p is no answer", (value) => {
    expect(() => classification.interpret(batch([1, value, 1]), 0, part())).toThrow("finite");
  });

  test("without one number for each label is no answer", () => {
    expect(() => classification.interpret(batch([1, 2]), 0, part())).toThrow("3 finite numbers");
    expect(() => classification.interpret({}, 0, part())).toThrow(`"logits"`);
  });

  test("has probabilities that sum to one, whatever the logits", () => {
    const logit = fc.float({ noNaN: true, noDefaultInfinity: true });
    fc.assert(
      fc.property(fc.array(logit, { minLength: 1, maxLength: 50 }), (logits) => {
        const sum = softmax(Float32Array.from(logits)).reduce((a, b) => a + b, 0);
        expect(sum).toBeCloseTo(1, 3);
      }),
    );
  });
});

describe("a question", () => {
  test("is asked by the name of a group", () => {
    expect(classification.question({ group: "pet", threshold: 0.7 }, part())).toEqual({
      group: [0, 1],
      threshold: 0.7,
    });
  });

  test.each(["fox", "constructor"])("about %s is refused where there is no such group", (group) => {
    expect(() => classification.question({ group, threshold: 0.5 }, part())).toThrow(
      `Expected group to be one of cat, pet but received "${group}"`,
    );
  });
});
