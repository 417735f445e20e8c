import { problemsOf } from "../../../../lib/check.ts";
import { MAX_SERVED, selected, versionPolicy } from "../../../../lib/models/policy.ts";

describe("a version policy", () => {
  const there = [3, 1, 200, 20];

  test("takes the newest so many by number, all, or certain ones", () => {
    expect(selected({ latest: 1 }, there)).toEqual([200]);
    expect(selected({ latest: 3 }, there)).toEqual([200, 20, 3]);
    expect(selected("all", there)).toEqual([200, 20, 3, 1]);
    expect(selected({ specific: [1, 3, 7] }, there)).toEqual([3, 1]);
  });

  test("serves no more than a bound, however many there are", () => {
    const many = Array.from({ length: 200 }, (_, i) => i + 1);
    expect(selected("all", many)).toHaveLength(MAX_SERVED);
    expect(selected("all", many)[0]).toBe(200);
  });

  test.each([
    { latest: 0 },
    { latest: 17 },
    { latest: 1, more: 1 },
    "newest",
    { specific: [] },
    { specific: [0] },
  ])("is refused as %j, with what it may be", (given) => {
    expect(problemsOf(versionPolicy, given, "versionPolicy")).toEqual([
      expect.stringContaining("versionPolicy"),
    ]);
  });
});
