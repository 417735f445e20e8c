import { Complaints } from "../../../transporters/complaints.ts";

test("each kind is logged once a minute, with how often it was not", () => {
  const lines: [string, Record<string, unknown>][] = [];
  const clock = { now: 0 };
  const complaints = new Complaints(
    { warn: (message, details) => lines.push([message, details]) },
    () => clock.now,
  );
  for (let i = 0; i < 5; i++) complaints.about("garbage", { i });
  complaints.about("other");
  clock.now = 60_000;
  complaints.about("garbage", { i: 5 });
  complaints.about("other");

  expect(lines).toEqual([
    ["garbage", { i: 0 }],
    ["other", {}],
    ["garbage", { i: 5, suppressed: 4 }],
    ["other", {}],
  ]);
});
