import { problemsOf } from "../../../../lib/check.ts";
import {
  type Change,
  type Control,
  changed,
  control,
  newer,
  wishesOf,
} from "../../../../lib/models/control.ts";

function decided(...changes: Change[]): Control {
  const end = changes.reduce<Control | undefined>((now, change) => changed(now, change, "me"), undefined);
  if (!end) throw new Error("no change");
  return end;
}

describe("a decision", () => {
  test("is the next revision, with who and what, and is what may be published", () => {
    const made = decided({ op: "label", label: "stable", version: 1 }, { op: "load", version: 3 });
    expect(made).toMatchObject({ revision: 2, by: "me", what: "load version 3", stable: 1, load: [3] });
    expect(problemsOf(control, made)).toEqual([]);
  });

  test.each<[string, Change[], object]>([
    ["load", [{ op: "load", version: 2 }], { load: [2], unload: [] }],
    [
      "load after unload",
      [
        { op: "unload", version: 2 },
        { op: "load", version: 2 },
      ],
      { load: [2], unload: [] },
    ],
    [
      "unload after load",
      [
        { op: "load", version: 2 },
        { op: "unload", version: 2 },
      ],
      { load: [], unload: [2] },
    ],
    [
      "load twice",
      [
        { op: "load", version: 2 },
        { op: "load", version: 2 },
      ],
      { load: [2] },
    ],
    [
      "refuse, which takes labels away",
      [
        { op: "label", label: "stable", version: 2 },
        { op: "label", label: "canary", version: 2, share: 0.5 },
        { op: "refuse", version: 2, fingerprint: "f", reason: "bad" },
      ],
      { refused: ["f"], stable: undefined, canary: undefined },
    ],
    [
      "load of what was refused",
      [
        { op: "refuse", version: 2, fingerprint: "f", reason: "bad" },
        { op: "load", version: 2 },
      ],
      { refused: [], load: [2] },
    ],
    [
      "rollback, which ends the canary",
      [
        { op: "label", label: "canary", version: 3, share: 0.1 },
        { op: "rollback", version: 1 },
      ],
      { stable: 1, canary: undefined },
    ],
  ])("%s", (_, changes, expected) => {
    expect(wishesOf(decided(...changes))).toMatchObject(expected);
  });

  test("does not unload what has a label", () => {
    const labelled = decided({ op: "label", label: "stable", version: 2 });
    expect(() => changed(labelled, { op: "unload", version: 2 }, "me")).toThrow("Version 2 is stable");
  });

  test("gives no canary without a share", () => {
    expect(() => decided({ op: "label", label: "canary", version: 2 })).toThrow("Expected a share");
  });

  test("keeps what was tuned before", () => {
    const tuned = decided(
      { op: "tune", tuning: { maxBatchSize: 4 } },
      { op: "tune", tuning: { concurrency: 1 } },
    );
    expect(tuned.tuning).toEqual({ maxBatchSize: 4, concurrency: 1 });
  });

  test("stays small, however often it is changed", () => {
    const changes = Array.from({ length: 500 }, (_, i): Change[] => [
      { op: "load", version: i + 1 },
      { op: "unload", version: i + 1000 },
      { op: "refuse", version: i + 5000, fingerprint: `f${i}`, reason: "x".repeat(1000) },
    ]);
    expect(problemsOf(control, decided(...changes.flat()))).toEqual([]);
  });

  test("that is newer counts; of two at the same time everyone takes the same", () => {
    const one = decided({ op: "load", version: 1 });
    const two = changed(one, { op: "load", version: 2 }, "me");
    expect(newer<Control | undefined>(one, two)).toBe(two);
    expect(newer<Control | undefined>(two, one)).toBe(two);
    const other = changed(one, { op: "load", version: 3 }, "someone else");
    expect(newer<Control | undefined>(two, other)).toBe(newer<Control | undefined>(other, two));
    expect(newer<Control | undefined>(undefined, one)).toBe(one);
  });
});
