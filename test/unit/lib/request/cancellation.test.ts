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
