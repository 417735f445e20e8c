import { isLoaded } from "../../../middlewares/prefetch.ts";

describe("a node", () => {
  test.each([
    [{ memory: 0.95, wait: 0 }, false, true],
    [{ memory: 0, wait: 0.6 }, false, true],
    [{ memory: 0.85, wait: 0.4 }, false, false],
    [{ memory: 0.85, wait: 0 }, true, true],
    [{ memory: 0, wait: 0.4 }, true, true],
    [{ memory: 0.7, wait: 0.1 }, true, false],
  ])("with %j that pulled less (%s) pulls less: %s", (report, before, after) => {
    expect(isLoaded(report, before)).toBe(after);
  });
});
