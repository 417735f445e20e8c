import type { Tensors } from "../../../../lib/engines/tensors.ts";
import { type RankingOutput, type RankingTaskPart, rankingTask } from "../../../../lib/tasks/ranking.ts";

const items = ["a", "b", "c", "d"].map((id) => ({ id, title: id.toUpperCase() }));
const part: RankingTaskPart = {
  name: "ranking",
  output: "scores",
  eligible: "eligible",
  known: "known",
  items,
};

function batch(scores: number[], eligible = [1, 1, 1, 1], known = [1, 2]): Tensors {
  // The second of two, so that who reads the first is found out.
  return {
    scores: { dtype: "float32", shape: [2, 4], data: Float32Array.of(9, 9, 9, 9, ...scores) },
    eligible: { dtype: "float32", shape: [2, 4], data: Float32Array.of(0, 0, 0, 0, ...eligible) },
    known: { dtype: "int32", shape: [2, 2], data: Int32Array.of(0, 0, ...known) },
  };
}

const answer = (outputs: Tensors, info?: { readonly limit: number }) =>
  rankingTask.answer(
    rankingTask.interpret(outputs, 1, part),
    { limit: 3 },
    { items },
    info && { sha256: "", ...info },
  );

describe("the answer of a recommender", () => {
  test("names the best first, of equals the first, as many as the service gives", () => {
    expect(answer(batch([1, 3, 2, 3]))).toEqual({
      items: [
        { item: "b", title: "B", score: 3 },
        { item: "d", title: "D", score: 3 },
        { item: "c", title: "C", score: 2 },
      ],
      basedOn: { user: true, history: 2 },
    });
  });

  test("has as many as the client wants", () => {
    const limit = (count: number) => answer(batch([1, 3, 2, 3]), { limit: count }).items.length;
    expect([limit(1), limit(4), limit(100)]).toEqual([1, 4, 4]);
  });

  test("leaves out what may not be ranked, however well it scores", () => {
    expect(answer(batch([1, 3, 2, -4], [1, 0, 1, 1])).items.map(({ item }) => item)).toEqual(["c", "a", "d"]);
    expect(answer(batch([1, 2, 3, 4], [0, 0, 0, 0])).items).toEqual([]);
  });

  test("is none where a score is no number", () => {
    expect(() => answer(batch([1, Number.NaN, 2, 3]))).toThrow("finite");
  });

  test.each<[string, Partial<Record<keyof RankingOutput, unknown>>]>([
    ["nothing", {}],
    ["plain lists", { items: [0], scores: [1] }],
    ["items of no catalogue", { items: Int32Array.of(4), scores: Float32Array.of(1) }],
    ["items below the catalogue", { items: Int32Array.of(-1), scores: Float32Array.of(1) }],
    ["fewer scores", { items: Int32Array.of(0, 1), scores: Float32Array.of(1) }],
    ["a score that is none", { items: Int32Array.of(0), scores: Float32Array.of(Number.NaN) }],
  ])("is not made of %s from the wire or a store", (_, output) => {
    expect(() => rankingTask.answer(output as unknown as RankingOutput, { limit: 3 }, { items })).toThrow(
      "Expected an output",
    );
  });
});

test("a part that names outputs of another type or length contradicts the graph", () => {
  const outputs = [
    { name: "scores", dtype: "float32", shape: [4] },
    { name: "eligible", dtype: "float32", shape: [4] },
    { name: "known", dtype: "int32", shape: [2] },
  ] as const;
  expect(rankingTask.contradictions(part, outputs)).toEqual([]);
  for (const wrong of [
    { ...part, output: "score" },
    { ...part, output: "known" },
    { ...part, eligible: "known" },
    { ...part, known: "scores" },
    { ...part, items: items.slice(1) },
  ]) {
    expect(rankingTask.contradictions(wrong, outputs)).not.toEqual([]);
  }
});
