import { LoadState, parseReport } from "../../../../lib/load/load.ts";

const REPORT = { cpu: 0.5, wait: 0, memory: 1, queued: 3, inFlight: 2, draining: false };

describe("parseReport", () => {
  test("takes a report and leaves out what does not belong to it", () => {
    expect(parseReport({ ...REPORT, extra: "x" })).toEqual(REPORT);
  });

  test.each([
    undefined,
    null,
    "load",
    [],
    {},
    { ...REPORT, cpu: Number.NaN },
    { ...REPORT, cpu: -0.1 },
    { ...REPORT, wait: 1.1 },
    { ...REPORT, memory: "1" },
    { ...REPORT, queued: Number.POSITIVE_INFINITY },
    { ...REPORT, inFlight: null },
    { ...REPORT, draining: "no" },
  ])("refuses %j", (value) => {
    expect(parseReport(value)).toBeUndefined();
  });
});

describe("LoadState", () => {
  test("adds up its queues, and forgets those taken away", () => {
    const state = new LoadState();
    const remove = state.registerQueue("cat", () => ({ queued: 3, inFlight: 8 }));
    state.registerQueue("dog", () => ({ queued: 1, inFlight: 0 }));
    expect(state.report(false)).toMatchObject({ queued: 4, inFlight: 8 });
    remove();
    expect(state.report(false)).toMatchObject({ queued: 1, inFlight: 0 });
  });

  test("taking away a queue leaves the one that replaced it", () => {
    const state = new LoadState();
    const remove = state.registerQueue("cat", () => ({ queued: 3, inFlight: 0 }));
    state.registerQueue("cat", () => ({ queued: 7, inFlight: 0 }));
    remove();
    expect(state.report(false).queued).toBe(7);
  });

  test("counts the actions that run where there is no queue", () => {
    const state = new LoadState();
    const done = state.begin();
    state.begin();
    expect(state.report(false).inFlight).toBe(2);
    done();
    expect(state.report(false).inFlight).toBe(1);
  });

  test("does not count an action twice for waiting in a queue", () => {
    const state = new LoadState();
    for (let i = 0; i < 5; i++) state.begin();
    state.registerQueue("cat", () => ({ queued: 3, inFlight: 2 }));
    expect(state.report(false)).toMatchObject({ queued: 3, inFlight: 2 });
  });

  test("says that it drains", () => {
    expect(new LoadState().report(true).draining).toBe(true);
  });

  test("its report is one that the other side takes", () => {
    const state = new LoadState();
    state.sample();
    expect(parseReport(JSON.parse(JSON.stringify(state.report(false))))).toBeDefined();
  });
});
