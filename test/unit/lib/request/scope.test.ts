import type { Context } from "moleculer";
import { ServingError } from "../../../../lib/errors.ts";
import { createScope, pause, scopeOf, whyOver, within } from "../../../../lib/request/scope.ts";
import { FakeClock } from "../../../../testkit/fake-clock.ts";

function scope(parts: { deadline?: number } = {}) {
  const clock = new FakeClock();
  const abort = new AbortController();
  return { clock, abort, scope: createScope({ clock, signal: abort.signal, ...parts }) };
}

const forever = () => new Promise<never>(() => {});

describe("within", () => {
  test("gives what the work gives, and leaves no timer", async () => {
    const { clock, scope: own } = scope({ deadline: 100 });
    await expect(within(own, "work", async () => 7)).resolves.toBe(7);
    expect(clock.pending).toBe(0);
  });

  test("ends at the deadline, on the scope's clock, and says where", async () => {
    const { clock, scope: own } = scope({ deadline: 100 });
    const running = within(own, "work", forever);
    running.catch(() => {});
    await clock.advance(100);
    await expect(running).rejects.toMatchObject({ type: "DEADLINE_EXCEEDED", data: { stage: "work" } });
  });

  test("ends as cancelled when the caller gives up", async () => {
    const { abort, scope: own } = scope();
    const running = within(own, "work", forever);
    abort.abort();
    await expect(running).rejects.toMatchObject({ type: "CANCELLED" });
  });

  test("ends with the reason that was given", async () => {
    const { abort, scope: own } = scope();
    const running = within(own, "work", forever);
    abort.abort(new ServingError("DRAINING", "bye"));
    await expect(running).rejects.toMatchObject({ type: "DRAINING" });
  });

  test.each(["deadline", "signal"])("does not begin what is over already (%s)", async (what) => {
    const { abort, scope: own } = scope(what === "deadline" ? { deadline: 0 } : {});
    if (what === "signal") abort.abort();
    let begun = false;
    const running = within(own, "work", async () => {
      begun = true;
    });
    await expect(running).rejects.toThrow();
    expect(begun).toBe(false);
  });
});

describe("pause", () => {
  test("lasts as long as it says", async () => {
    const { clock, scope: own } = scope();
    let over = false;
    const waiting = pause(10, own).then(() => {
      over = true;
    });
    await clock.advance(9);
    expect(over).toBe(false);
    await clock.advance(1);
    await waiting;
    expect(over).toBe(true);
  });

  test("ends at once when the caller gives up, and leaves no timer", async () => {
    const { clock, abort, scope: own } = scope();
    const waiting = pause(1000, own);
    abort.abort();
    await expect(waiting).rejects.toMatchObject({ type: "CANCELLED" });
    expect(clock.pending).toBe(0);
  });
});

describe("whyOver", () => {
  test("is nothing while there is time", () => {
    expect(whyOver(scope({ deadline: 1 }).scope, "x")).toBeUndefined();
  });
});

describe("scopeOf", () => {
  const context = (options: object, more: object = {}) =>
    ({ options, locals: {}, requestID: "id", ...more }) as unknown as Context;

  test("counts Moleculer's time-out from when the context was made", () => {
    const [seconds, nanoseconds] = process.hrtime();
    const { deadline } = scopeOf(context({ timeout: 5000 }, { startHrTime: [seconds - 2, nanoseconds] }));
    const left = deadline - performance.now();
    expect(left).toBeLessThanOrEqual(3000);
    expect(left).toBeGreaterThan(0);
  });

  test("of a call without time-out never ends", () => {
    expect(scopeOf(context({ timeout: 0 })).deadline).toBe(Number.POSITIVE_INFINITY);
    expect(scopeOf(context({})).requestId).toBe("id");
  });

  test("is what the middleware has set", () => {
    const set = createScope({ requestId: "set" });
    expect(scopeOf(context({}, { locals: { scope: set } }))).toBe(set);
  });
});
