import { jest } from "@jest/globals";
import { ServingError } from "../../../../lib/errors.ts";
import { createScope } from "../../../../lib/request/scope.ts";
import { Semaphore } from "../../../../lib/request/semaphore.ts";

/** Of who waits for ever. */
const scope = createScope();

function tasks() {
  const started: string[] = [];
  const gates = new Map<string, PromiseWithResolvers<string>>();
  return {
    started,
    task: (name: string) => () => {
      started.push(name);
      const gate = Promise.withResolvers<string>();
      gates.set(name, gate);
      return gate.promise;
    },
    finish: (name: string) => gates.get(name)?.resolve(name),
    fail: (name: string, error: Error) => gates.get(name)?.reject(error),
  };
}

describe("Semaphore", () => {
  test("starts as many tasks as it has permits, and the rest in their order", async () => {
    const { started, task, finish } = tasks();
    const semaphore = new Semaphore({ name: "the test", stage: "work", permits: 2, maxWaiting: 10 });
    const runs = ["a", "b", "c", "d"].map((name) => semaphore.run(task(name), scope));
    expect(started).toEqual(["a", "b"]);
    expect([semaphore.active, semaphore.waiting]).toEqual([2, 2]);

    finish("b");
    await expect(runs[1]).resolves.toBe("b");
    expect(started).toEqual(["a", "b", "c"]);

    for (const name of ["a", "c"]) finish(name);
    await Promise.all([runs[0], runs[2]]);
    finish("d");
    await expect(runs[3]).resolves.toBe("d");
    expect([semaphore.active, semaphore.waiting]).toEqual([0, 0]);
  });

  test("gives the permit of a failed task to the next", async () => {
    const { started, task, finish, fail } = tasks();
    const semaphore = new Semaphore({ name: "the test", stage: "work", permits: 1, maxWaiting: 1 });
    const [first, second] = [semaphore.run(task("a"), scope), semaphore.run(task("b"), scope)];
    fail("a", new Error("broken"));
    await expect(first).rejects.toThrow("broken");
    expect(started).toEqual(["a", "b"]);
    finish("b");
    await expect(second).resolves.toBe("b");
  });

  test("refuses at once when the line is full", async () => {
    const { started, task, finish } = tasks();
    const semaphore = new Semaphore({ name: "the test", stage: "work", permits: 1, maxWaiting: 1 });
    const accepted = [semaphore.run(task("a"), scope), semaphore.run(task("b"), scope)];
    const refusal = await semaphore.run(task("c"), scope).catch((error) => error);
    expect(refusal).toBeInstanceOf(ServingError);
    expect(refusal).toMatchObject({ type: "QUEUE_FULL", message: "The queue of the test is full (1 items)" });

    finish("a");
    await accepted[0];
    finish("b");
    await accepted[1];
    expect(started).toEqual(["a", "b"]);
  });

  test("takes a task out of the line when its signal aborts", async () => {
    const { started, task, finish } = tasks();
    const semaphore = new Semaphore({ name: "the test", stage: "work", permits: 1, maxWaiting: 1 });
    const stop = new AbortController();
    const first = semaphore.run(task("a"), scope);
    const second = semaphore.run(task("b"), createScope({ signal: stop.signal }));
    stop.abort(new Error("gone"));
    await expect(second).rejects.toThrow("gone");
    expect(semaphore.waiting).toBe(0);

    const third = semaphore.run(task("c"), scope);
    finish("a");
    await first;
    expect(started).toEqual(["a", "c"]);
    finish("c");
    await third;
  });

  test("never starts a task whose signal has aborted already", async () => {
    const { started, task } = tasks();
    const run = new Semaphore({ name: "the test", stage: "work", permits: 1, maxWaiting: 1 }).run(
      task("a"),
      createScope({ signal: AbortSignal.abort(new Error("gone")) }),
    );
    await expect(run).rejects.toThrow("gone");
    expect(started).toEqual([]);
  });

  test("lets the caller of a running task go, but holds its permit until it has settled", async () => {
    const { started, task, finish } = tasks();
    const semaphore = new Semaphore({ name: "the test", stage: "work", permits: 1, maxWaiting: 1 });
    const stop = new AbortController();
    const first = semaphore.run(task("a"), createScope({ signal: stop.signal }));
    const second = semaphore.run(task("b"), scope);
    stop.abort(new Error("gone"));
    await expect(first).rejects.toThrow("gone");
    expect(semaphore.active).toBe(1);
    expect(started).toEqual(["a"]);

    finish("a");
    await new Promise(setImmediate);
    expect(started).toEqual(["a", "b"]);
    finish("b");
    await second;
    expect(semaphore.active).toBe(0);
  });
});

describe("what is known of a task", () => {
  const slow = { expectedMs: 10_000 };
  const heavy = (weight: number) => ({ expectedMs: 10_000, weight });

  test("the quick pass the slow that wait", async () => {
    const { started, task, finish } = tasks();
    const semaphore = new Semaphore({ name: "the test", stage: "work", permits: 1, maxWaiting: 10 });
    const runs = [
      semaphore.run(task("first"), scope),
      semaphore.run(task("slow"), scope, slow),
      semaphore.run(task("quick"), scope),
      semaphore.run(task("quick too"), scope),
    ];
    for (const name of ["first", "quick", "quick too", "slow"]) {
      expect(started.at(-1)).toBe(name);
      finish(name);
      await new Promise(setImmediate);
    }
    await Promise.all(runs);
  });

  test("but not for ever: after four times what it takes nobody passes any more", async () => {
    jest.useFakeTimers({ doNotFake: ["nextTick", "queueMicrotask", "setImmediate"] });
    try {
      const { started, task, finish } = tasks();
      const semaphore = new Semaphore({ name: "the test", stage: "work", permits: 1, maxWaiting: 10 });
      const runs = [
        semaphore.run(task("first"), scope),
        semaphore.run(task("slow"), scope, { expectedMs: 100 }),
      ];
      jest.advanceTimersByTime(399);
      runs.push(semaphore.run(task("in time"), scope));
      jest.advanceTimersByTime(2);
      runs.push(semaphore.run(task("late"), scope));
      for (const name of ["first", "in time", "slow", "late"]) {
        expect(started.at(-1)).toBe(name);
        finish(name);
        await new Promise(setImmediate);
      }
      await Promise.all(runs);
    } finally {
      jest.useRealTimers();
    }
  });

  test("heavy tasks leave one permit to the light", async () => {
    const { started, task, finish } = tasks();
    const semaphore = new Semaphore({ name: "the test", stage: "work", permits: 2, maxWaiting: 10 });
    const runs = ["a", "b", "c"].map((name) => semaphore.run(task(name), scope, heavy(1)));
    expect(started).toEqual(["a"]);
    runs.push(semaphore.run(task("light"), scope));
    expect(started).toEqual(["a", "light"]);
    for (const name of ["a", "b", "c", "light"]) {
      finish(name);
      await new Promise(setImmediate);
    }
    await Promise.all(runs);
    expect(started).toEqual(["a", "light", "b", "c"]);
  });

  test("heavy tasks stay within the capacity, in their order; one that alone is over it runs alone", async () => {
    const { started, task, finish } = tasks();
    const semaphore = new Semaphore({
      name: "the test",
      stage: "work",
      permits: 4,
      maxWaiting: 10,
      capacity: 10,
    });
    const runs = [6, 6, 1, 99].map((weight, i) =>
      semaphore.run(task(`${i}:${weight}`), scope, heavy(weight)),
    );
    expect(started).toEqual(["0:6"]);
    finish("0:6");
    await new Promise(setImmediate);
    expect(started).toEqual(["0:6", "1:6", "2:1"]);
    finish("1:6");
    await new Promise(setImmediate);
    expect(started).toHaveLength(3);
    finish("2:1");
    await new Promise(setImmediate);
    expect(started.at(-1)).toBe("3:99");
    finish("3:99");
    await Promise.all(runs);
  });

  test("when the one that others wait behind leaves, they start", async () => {
    const { started, task, finish } = tasks();
    const semaphore = new Semaphore({
      name: "the test",
      stage: "work",
      permits: 3,
      maxWaiting: 10,
      capacity: 10,
    });
    const stop = new AbortController();
    const first = semaphore.run(task("6"), scope, heavy(6));
    const gone = semaphore.run(task("9"), createScope({ signal: stop.signal }), heavy(9));
    const behind = semaphore.run(task("2"), scope, heavy(2));
    expect(started).toEqual(["6"]);
    stop.abort(new Error("gone"));
    await expect(gone).rejects.toThrow("gone");
    expect(started).toEqual(["6", "2"]);
    for (const name of ["6", "2"]) finish(name);
    await Promise.all([first, behind]);
  });
});
