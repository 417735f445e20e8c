import { consequence } from "../../../../lib/batching/bisection.ts";

describe("what becomes of a batch that failed", () => {
  test.each([
    ["refused: it is halved", { size: 8, how: "refused", deathsAlone: 0 }, { tryAgain: 4 }],
    [
      "refused, an odd number: the larger half first",
      { size: 5, how: "refused", deathsAlone: 0 },
      { tryAgain: 3 },
    ],
    ["refused, one item: it is the bad one", { size: 1, how: "refused", deathsAlone: 0 }, "failed"],
    [
      "refused, one item under which an engine died before",
      { size: 1, how: "refused", deathsAlone: 1 },
      "failed",
    ],
    ["not computed: it is no item's fault", { size: 8, how: "not computed", deathsAlone: 0 }, "failed"],
    ["an engine died: each is tried alone", { size: 8, how: "crashed", deathsAlone: 0 }, { tryAgain: 1 }],
    [
      "an engine died under one item: it may be bad luck",
      { size: 1, how: "crashed", deathsAlone: 0 },
      { tryAgain: 1 },
    ],
    ["another engine died under it alone", { size: 1, how: "crashed", deathsAlone: 1 }, "poison"],
    ["someone killed the engine", { size: 1, how: "killed", deathsAlone: 0 }, { tryAgain: 1 }],
    ["someone killed the next engine, too", { size: 1, how: "killed", deathsAlone: 1 }, "failed"],
  ] as const)("%s", (_, failure, expected) => {
    expect(consequence(failure)).toEqual(expected);
  });
});
