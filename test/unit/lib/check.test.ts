import { z } from "zod";
import { nearest, problemsOf } from "../../../lib/check.ts";

const schema = z.strictObject({
  size: z.int("a whole number of at least 1").min(1, "a whole number of at least 1"),
  name: z.string().optional(),
  mode: z.enum(["fast", "slow"]).optional(),
  parts: z.array(z.strictObject({ weight: z.number() })).optional(),
});

describe("problemsOf", () => {
  test.each<[string, unknown, string[]]>([
    ["nothing wrong", { size: 1 }, []],
    [
      "a value out of range",
      { size: 0 },
      ["Expected a whole number of at least 1 for size but received 0 of type number"],
    ],
    [
      "several at once",
      { size: "1", mode: "quick" },
      [
        'Expected a whole number of at least 1 for size but received "1" of type string',
        'Expected "fast" or "slow" for mode but received "quick" of type string',
      ],
    ],
    ["a misspelt key", { size: 1, nmae: "x" }, ['Unknown key "nmae": did you mean "name"?']],
    ["a strange key", { size: 1, colour: 2 }, ['Unknown key "colour": it has size, name, mode, parts']],
    [
      "a misspelt key deep inside",
      { size: 1, parts: [{ weight: 1, wieght: 2 }] },
      ['Unknown key "wieght" in parts.0: did you mean "weight"?'],
    ],
    ["no object", 5, ["Expected an object for it but received 5 of type number"]],
  ])("says of %s", (_, value, problems) => {
    expect(problemsOf(schema, value)).toEqual(problems);
  });

  test("says where the value stands", () => {
    expect(problemsOf(schema, { size: 1, nmae: 1 }, "settings")).toEqual([
      'Unknown key "nmae" in settings: did you mean "name"?',
    ]);
  });
});

describe("nearest", () => {
  test.each([
    ["maxBatchsize", "maxBatchSize"],
    ["qestion", "question"],
    ["x", undefined],
    ["entirely", undefined],
  ])("of %s is %s", (given, name) => {
    expect(nearest(given, ["maxBatchSize", "question", "group"])).toBe(name);
  });
});
