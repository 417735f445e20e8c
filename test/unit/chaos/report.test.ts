import { isWrong, type Miss, mayRepeat } from "../../chaos/report.ts";

const missed = (...bars: Miss["bar"][]) => ({ missed: bars.map((bar) => ({ bar, why: "…" })) });

test("any missed bar is wrong, but not what could not be run", () => {
  expect(isWrong(missed())).toBe(false);
  expect(isWrong(missed("fast"))).toBe(true);
  expect(isWrong(missed("run"))).toBe(true);
  expect(isWrong({ ...missed("run"), skipped: "no network namespace" })).toBe(false);
});

test("only what was too slow is repeated, never a lost or wrong answer beside it", () => {
  expect(mayRepeat(missed("fast"))).toBe(true);
  expect(mayRepeat(missed("pace", "fair"))).toBe(true);
  for (const bar of ["answered", "right", "alive", "orderly", "convicted", "bounded", "run"] as const) {
    expect(mayRepeat(missed(bar))).toBe(false);
    expect(mayRepeat(missed("fast", bar))).toBe(false);
  }
});

test("a proof needs the bar that the mechanism protects, and may be tried again", () => {
  expect(isWrong(missed("answered"), "answered")).toBe(false);
  expect(isWrong(missed("fast", "answered"), "answered")).toBe(false);
  expect(isWrong(missed(), "answered")).toBe(true);
  expect(isWrong(missed("fast", "run"), "answered")).toBe(true);
  expect(mayRepeat(missed("run"), "answered")).toBe(true);
});
