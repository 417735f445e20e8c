import { type LoadReport, LoadTable, missesAt, newcomer, paceAt } from "../../../../lib/load/table.ts";

const IDLE: LoadReport = { cpu: 0, wait: 0, memory: 0, queued: 0, inFlight: 0, draining: false };

function table() {
  const clock = { ms: 1000 };
  return { clock, table: new LoadTable(() => clock.ms) };
}

test("a request counts until it ends, and ends once", () => {
  const { table: loads } = table();
  const end = loads.begin("a");
  loads.begin("a");
  expect(loads.get("a")?.inFlight).toBe(2);
  end("answered");
  end("answered");
  expect(loads.get("a")?.inFlight).toBe(1);
});

test("the backlog of others is what the node tells, less what is ours", () => {
  const { table: loads } = table();
  loads.begin("a");
  loads.begin("a");
  loads.heartbeat("a", { ...IDLE, queued: 5, inFlight: 3 });
  expect(loads.get("a")?.backlog).toBe(6);
  loads.heartbeat("a", { ...IDLE, inFlight: 1 });
  expect(loads.get("a")?.backlog).toBe(0);
});

test("a heartbeat without a report is a sign of life and leaves the last report", () => {
  const { clock, table: loads } = table();
  loads.heartbeat("a", { ...IDLE, cpu: 0.5 });
  clock.ms = 2000;
  loads.heartbeat("a", undefined);
  expect(loads.get("a")).toMatchObject({ heardAt: 2000, reportedAt: 1000, report: { cpu: 0.5 } });
});

test("misses add up, fade by half every second and are capped", () => {
  const { clock, table: loads } = table();
  for (let i = 0; i < 2; i++) loads.begin("a")("missed");
  clock.ms += 1000;
  const entry = loads.get("a");
  expect(entry && missesAt(entry, clock.ms)).toBeCloseTo(1);
  for (let i = 0; i < 100; i++) loads.begin("a")("missed");
  expect(loads.get("a")?.misses).toBe(16);
});

test("neither a miss nor a failure is a sign of life", () => {
  const { clock, table: loads } = table();
  loads.seen("a");
  clock.ms = 5000;
  loads.begin("a")("missed");
  loads.begin("a")("failed");
  expect(loads.get("a")?.heardAt).toBe(1000);
  loads.begin("a")("answered");
  expect(loads.get("a")?.heardAt).toBe(5000);
});

test("a node that was started anew begins from nothing; an update of the same one changes nothing", () => {
  const { clock, table: loads } = table();
  loads.heartbeat("a", IDLE);
  loads.seen("a", "first");
  loads.begin("a");
  clock.ms = 2000;
  loads.seen("a", "first");
  expect(loads.get("a")).toMatchObject({ inFlight: 1, since: 1000 });
  loads.seen("a", "second");
  expect(loads.get("a")).toMatchObject({ inFlight: 0, since: 2000, report: undefined });
});

test("a request to a node that was forgotten meanwhile ends without bringing it back", () => {
  const { table: loads } = table();
  const end = loads.begin("a");
  loads.forget("a");
  end("answered");
  expect(loads.get("a")).toBeUndefined();
});

describe("pace", () => {
  test("is the time of one request alone, however many were ahead", () => {
    const { clock, table: loads } = table();
    const ends = Array.from({ length: 4 }, () => loads.begin("a"));
    for (const end of ends) {
      clock.ms += 50;
      end("answered");
    }
    expect(loads.get("a")?.paceMs).toBeCloseTo(50);
  });

  test("follows the latest answers by and by", () => {
    const { clock, table: loads } = table();
    const answerIn = (ms: number) => {
      const end = loads.begin("a");
      clock.ms += ms;
      end("answered");
      return loads.get("a")?.paceMs;
    };
    expect(answerIn(10)).toBe(10);
    // A fifth of the way, and a little more for the time that has passed.
    expect(answerIn(110)).toBeGreaterThanOrEqual(30);
    expect(loads.get("a")?.paceMs).toBeLessThan(35);
    for (let i = 0; i < 50; i++) answerIn(110);
    expect(answerIn(110)).toBeCloseTo(110, 0);
  });

  test("is not touched by what was not answered", () => {
    const { clock, table: loads } = table();
    const [missed, failed] = [loads.begin("a"), loads.begin("a")];
    clock.ms += 500;
    missed("missed");
    failed("failed");
    expect(loads.get("a")?.paceMs).toBeUndefined();
  });

  test("fades into the other's when nothing confirms it", () => {
    const { clock, table: loads } = table();
    const end = loads.begin("a");
    clock.ms += 1600;
    end("answered");
    const { ms } = clock;
    const paces = [0, 2000, 4000, 60_000].map((age) => paceAt(loads.get("a") ?? newcomer(0), ms + age, 100));
    expect(paces[0]).toBeCloseTo(1600);
    expect(paces[1]).toBeCloseTo(400);
    expect(paces[2]).toBeCloseTo(200);
    expect(paces[3]).toBeCloseTo(100);
    expect(paceAt(newcomer(0), ms, 100)).toBe(100);
  });

  test("is the latest answer's after a long silence", () => {
    const { clock, table: loads } = table();
    const first = loads.begin("a");
    clock.ms += 1000;
    first("answered");
    clock.ms += 60_000;
    const second = loads.begin("a");
    clock.ms += 10;
    second("answered");
    expect(loads.get("a")?.paceMs).toBeCloseTo(10, 2);
  });
});
