import { Tally } from "../../../../lib/request/tally.ts";

test("counts each name by itself, down to none", () => {
  const tally = new Tally();
  for (const name of ["cat", "cat", "dog"]) tally.add(name);
  expect(["cat", "dog", "bird"].map((name) => tally.count(name))).toEqual([2, 1, 0]);
  tally.remove("cat");
  tally.remove("dog");
  expect(["cat", "dog"].map((name) => tally.count(name))).toEqual([1, 0]);
  tally.add("dog");
  expect(tally.count("dog")).toBe(1);
});
