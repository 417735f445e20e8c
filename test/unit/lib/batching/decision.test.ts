import { decide, type Situation } from "../../../../lib/batching/decision.ts";

const NEVER = Number.POSITIVE_INFINITY;

/** Two items that came at 100 and 103; it is 105, one batch runs, and they may wait until 110. */
function situation(changes: Omit<Partial<Situation>, "head"> & { head?: Partial<Situation["head"]> } = {}) {
  const { head, ...others } = changes;
  return {
    now: 105,
    running: 1,
    slots: 2,
    unsettled: 3,
    maxQueueDelayMs: 10,
    draining: false,
    takesMs: 20,
    ...others,
    head: { size: 2, full: false, queuedAt: 100, deadline: NEVER, ...head },
  };
}

describe("the head of the queue", () => {
  test.each<[string, Parameters<typeof situation>[0], ReturnType<typeof decide>]>([
    ["waits for company until its delay is over", {}, { wakeAt: 110 }],
    ["leaves when the delay is over", { now: 110 }, { leave: "delay", size: 2 }],
    ["leaves full whatever else holds", { head: { full: true } }, { leave: "full", size: 2 }],
    ["leaves whole when nothing runs", { running: 0, unsettled: 2 }, { leave: "idle", size: 2 }],
    ["leaves when there is no delay, with its share", { maxQueueDelayMs: 0 }, { leave: "idle", size: 2 }],
    [
      "leaves no more than its share of all that waits and runs",
      { maxQueueDelayMs: 0, head: { size: 6 }, unsettled: 8 },
      { leave: "idle", size: 4 },
    ],
    ["leaves when nobody else will come", { draining: true }, { leave: "idle", size: 2 }],
    ["waits no longer than its deadline allows", { head: { deadline: 128 } }, { wakeAt: 108 }],
    ["leaves when its deadline is at stake", { head: { deadline: 125 } }, { leave: "deadline", size: 2 }],
    [
      "leaves for any deadline while nothing was measured",
      { head: { deadline: 1e6 }, takesMs: undefined },
      { leave: "deadline", size: 2 },
    ],
    ["waits without a deadline though nothing was measured", { takesMs: undefined }, { wakeAt: 110 }],
  ])("%s", (_, changes, expected) => {
    expect(decide(situation(changes))).toEqual(expected);
  });
});
