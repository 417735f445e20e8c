import type { ErrorCode } from "../../../../lib/errors.ts";
import { Probation } from "../../../../lib/models/probation.ts";

function verdict(options: { requests: number; maxErrorRate: number }, ...codes: (ErrorCode | undefined)[]) {
  const probation = new Probation(options);
  for (const code of codes) probation.saw(code);
  return probation.verdict;
}

const ok = (count: number) => Array.from({ length: count }, () => undefined);
const bad = (count: number, code: ErrorCode = "PREDICTION_FAILED") =>
  Array.from({ length: count }, () => code);

describe("a probation", () => {
  const options = { requests: 10, maxErrorRate: 0.2 };

  test("is passed after so many items with few enough failures", () => {
    expect(verdict(options, ...ok(9))).toBe("open");
    expect(verdict(options, ...ok(8), ...bad(2))).toBe("passed");
  });

  test("is failed as soon as one failure too many was seen", () => {
    expect(verdict(options, ...bad(2))).toBe("open");
    expect(verdict(options, ...bad(3))).toBe("failed");
  });

  test("minds only what is the version's own fault", () => {
    const others = (
      ["QUEUE_FULL", "DEADLINE_EXCEEDED", "CANCELLED", "BAD_REQUEST", "DRAINING"] as const
    ).flatMap((code) => bad(20, code));
    expect(verdict(options, ...others)).toBe("open");
    expect(verdict(options, ...bad(3, "ENGINE_CRASHED"))).toBe("failed");
  });

  test("of no items is passed at once", () => {
    expect(verdict({ requests: 0, maxErrorRate: 0 })).toBe("passed");
  });

  test("that is over stays as it ended", () => {
    expect(verdict(options, ...ok(10), ...bad(10))).toBe("passed");
  });
});
