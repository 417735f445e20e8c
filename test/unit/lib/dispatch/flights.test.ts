import { Flights } from "../../../../lib/dispatch/flights.ts";
import { DeadlineExceededError, QueueFullError } from "../../../../lib/errors.ts";
import { createScope, type Scope } from "../../../../lib/request/scope.ts";
import { FakeClock } from "../../../../testkit/fake-clock.ts";

function airport() {
  const clock = new FakeClock();
  const flights = new Flights<string>();
  const begun: {
    readonly scope: Scope;
    readonly land: (value: string) => void;
    readonly fail: (e: Error) => void;
  }[] = [];
  const compute = (scope: Scope) => {
    const { promise, resolve: land, reject: fail } = Promise.withResolvers<string>();
    begun.push({ scope, land, fail });
    return promise;
  };
  /** One caller; `abort` is its client hanging up. */
  const board = ({ key = "k", deadline = Number.POSITIVE_INFINITY } = {}) => {
    const abort = new AbortController();
    const result = flights.run(key, createScope({ clock, deadline, signal: abort.signal }), compute);
    result.catch(() => {});
    return { result, abort };
  };
  return { clock, flights, begun, board };
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

describe("callers that want the same at the same time", () => {
  test("share one computation", async () => {
    const { begun, board, flights } = airport();
    const callers = [board(), board(), board()];
    await settle();
    begun[0]?.land("x");
    const results = await Promise.all(callers.map(({ result }) => result));
    expect(results.map(({ shared }) => shared)).toEqual([false, true, true]);
    expect([begun.length, flights.size]).toEqual([1, 0]);
  });

  test("of different things do not", async () => {
    const { begun, board } = airport();
    board({ key: "a" });
    board({ key: "b" });
    await settle();
    expect(begun).toHaveLength(2);
  });

  test("share its failure: the same, asked again at once, would fail the same way", async () => {
    const { begun, board } = airport();
    const callers = [board(), board()];
    await settle();
    begun[0]?.fail(new QueueFullError("m", 1));
    for (const { result } of callers) await expect(result).rejects.toMatchObject({ type: "QUEUE_FULL" });
    expect(begun).toHaveLength(1);
  });
});

describe("the one that began it", () => {
  test("may give up: the 200 others have what it began, computed once", async () => {
    const { begun, board } = airport();
    const leader = board();
    const others = Array.from({ length: 200 }, () => board());
    await settle();
    leader.abort.abort();
    await expect(leader.result).rejects.toMatchObject({ type: "CANCELLED" });
    expect(begun[0]?.scope.signal.aborted).toBe(false);
    begun[0]?.land("x");
    for (const { result } of others) await expect(result).resolves.toEqual({ value: "x", shared: true });
    expect(begun).toHaveLength(1);
  });

  test("may have had less time: one of those with time left begins again, the rest share that", async () => {
    const { clock, begun, board } = airport();
    const leader = board({ deadline: 10 });
    const others = [board({ deadline: 1000 }), board({ deadline: 1000 }), board({ deadline: 1000 })];
    await settle();
    await clock.advance(10);
    begun[0]?.fail(new DeadlineExceededError("queue"));
    await expect(leader.result).rejects.toMatchObject({ type: "DEADLINE_EXCEEDED" });
    await settle();
    expect(begun).toHaveLength(2);
    expect(begun[1]?.scope.deadline).toBe(1000);
    begun[1]?.land("x");
    for (const { result } of others) await expect(result).resolves.toMatchObject({ value: "x" });
  });
});

describe("one that shares", () => {
  test("ends at its own deadline", async () => {
    const { clock, board } = airport();
    const leader = board();
    const hasty = board({ deadline: 10 });
    await settle();
    await clock.advance(10);
    await expect(hasty.result).rejects.toMatchObject({ type: "DEADLINE_EXCEEDED" });
    leader.abort.abort();
  });

  test("ends when its own client hangs up", async () => {
    const { begun, board } = airport();
    const leader = board();
    const other = board();
    await settle();
    other.abort.abort();
    await expect(other.result).rejects.toMatchObject({ type: "CANCELLED" });
    begun[0]?.land("x");
    await expect(leader.result).resolves.toEqual({ value: "x", shared: false });
  });
});

test("a computation that nobody waits for any more is given up, and not joined", async () => {
  const { begun, board, flights } = airport();
  const callers = [board(), board()];
  await settle();
  for (const { abort } of callers) abort.abort();
  await settle();
  expect([begun[0]?.scope.signal.aborted, flights.size]).toEqual([true, 0]);
  const late = board();
  await settle();
  begun[1]?.land("x");
  await expect(late.result).resolves.toEqual({ value: "x", shared: false });
});
