import { Warnings } from "../../../transporters/warnings.ts";

test("each kind is logged once a minute, with how often it was not", () => {
  const lines: [string, Record<string, unknown> | undefined][] = [];
  const clock = { now: 0 };
  const logger = {
    info() {},
    warn: (message: string, details?: Record<string, unknown>) => void lines.push([message, details]),
    error() {},
  };
  const warnings = new Warnings(logger, () => clock.now);
  for (let i = 0; i < 5; i++) warnings.about("garbage", { i });
  warnings.about("other");
  clock.now = 60_000;
  warnings.about("garbage", { i: 5 });
  warnings.about("other");

  expect(lines).toEqual([
    ["garbage", { i: 0 }],
    ["other", {}],
    ["garbage", { i: 5, suppressed: 4 }],
    ["other", {}],
  ]);
});
