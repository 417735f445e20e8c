import { ServingError } from "../../../../lib/errors.ts";
import { Semaphore } from "../../../../lib/request/semaphore.ts";

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
    const semaphore = new Semaphore("the test", 2, 10);
    const runs = ["a", "b", "c", "d"].map((name) => semaphore.run(task(name)));
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
    const semaphore = new Semaphore("the test", 1, 1);
    const [first, second] = [semaphore.run(task("a")), semaphore.run(task("b"))];
    fail("a", new Error("broken"));
    await expect(first).rejects.toThrow("broken");
    expect(started).toEqual(["a", "b"]);
    finish("b");
    await expect(second).resolves.toBe("b");
  });

  test("refuses at once when the line is full", async () => {
    const { started, task, finish } = tasks();
    const semaphore = new Semaphore("the test", 1, 1);
    const accepted = [semaphore.run(task("a")), semaphore.run(task("b"))];
    const refusal = await semaphore.run(task("c")).catch((error) => error);
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
    const semaphore = new Semaphore("the test", 1, 1);
    const stop = new AbortController();
    const first = semaphore.run(task("a"));
    const second = semaphore.run(task("b"), stop.signal);
    stop.abort(new Error("gone"));
    await expect(second).rejects.toThrow("gone");
    expect(semaphore.waiting).toBe(0);

    const third = semaphore.run(task("c"));
    finish("a");
    await first;
    expect(started).toEqual(["a", "c"]);
    finish("c");
    await third;
  });

  test("never starts a task whose signal has aborted already", async () => {
    const { started, task } = tasks();
    const run = new Semaphore("the test", 1, 1).run(task("a"), AbortSignal.abort(new Error("gone")));
    await expect(run).rejects.toThrow("gone");
    expect(started).toEqual([]);
  });

  test("lets the caller of a running task go, but holds its permit until it has settled", async () => {
    const { started, task, finish } = tasks();
    const semaphore = new Semaphore("the test", 1, 1);
    const stop = new AbortController();
    const first = semaphore.run(task("a"), stop.signal);
    const second = semaphore.run(task("b"));
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
