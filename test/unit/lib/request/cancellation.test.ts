import { Cancellations } from "../../../../lib/request/cancellation.ts";

describe("Cancellations", () => {
  test("aborts what runs for a request and nothing else", async () => {
    const cancellations = new Cancellations();
    const until = (id: string) =>
      cancellations.track(id, async (signal) => {
        await new Promise((resolve) => setImmediate(resolve));
        return signal?.aborted;
      });
    const running = [until("a"), until("a"), until("b")];
    cancellations.abort("a");
    expect(await Promise.all(running)).toEqual([true, true, false]);
  });

  test("aborts what begins after its cancellation came", async () => {
    const cancellations = new Cancellations();
    cancellations.abort("a");
    const aborted = (id: string) => cancellations.track(id, async (signal) => signal?.aborted);
    expect([await aborted("a"), await aborted("b")]).toEqual([true, false]);
  });

  test("knows who holds its calls: whom it asked, or who has taken them over", async () => {
    const cancellations = new Cancellations();
    const { promise, resolve } = Promise.withResolvers<void>();
    const calls = ["1", "2", "3"].map((id) =>
      cancellations.asking(id, id === "3" ? "b" : "a", `node-${id}`, () => promise),
    );
    expect(cancellations.taken("2", "thief")).toBeUndefined();
    expect([...cancellations.giveUp("a")]).toEqual(["node-1", "thief"]);
    expect(cancellations.taken("1", "late")).toBe("a");
    expect(cancellations.taken("3", "late")).toBeUndefined();
    resolve();
    await Promise.all(calls);
    expect(cancellations.taken("1", "late")).toBeUndefined();
    expect(cancellations.giveUp("a").size).toBe(0);
  });

  test("forgets a request when its work is over, also when it fails", async () => {
    const cancellations = new Cancellations();
    await cancellations.track("a", async () => {});
    await cancellations
      .track("b", async () => {
        throw new Error("x");
      })
      .catch(() => {});
    cancellations.abort("a");
    expect(cancellations.size).toBe(0);
  });
});
