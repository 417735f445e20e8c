import { Poll } from "../../../../lib/models/poll.ts";
import { FakeClock } from "../../../../testkit/fake-clock.ts";

function poll(random: number, look: () => Promise<unknown> = async () => {}) {
  const clock = new FakeClock();
  const at: number[] = [];
  const made = new Poll(
    async () => {
      at.push(clock.now());
      await look();
    },
    { everyMs: 1000, clock, random: () => random },
  );
  made.start();
  return { clock, at, made };
}

describe("a poll", () => {
  test("comes up to a tenth earlier or later, so that replicas spread", async () => {
    const early = poll(0);
    await early.clock.advance(1900);
    expect(early.at).toEqual([900, 1800]);
    const late = poll(1);
    await late.clock.advance(2300);
    expect(late.at).toEqual([1100, 2200]);
  });

  test("goes on after a look that failed, and never looks twice at once", async () => {
    const { clock, at } = poll(0.5, () => Promise.reject(new Error("no")));
    await clock.advance(2000);
    expect(at).toEqual([1000, 2000]);
    const open = Promise.withResolvers<void>();
    const slow = poll(0.5, () => open.promise);
    await slow.clock.advance(5000);
    expect(slow.at).toEqual([1000]);
    open.resolve();
    await slow.clock.advance(1000);
    expect(slow.at).toEqual([1000, 6000]);
  });

  test("ends when it is stopped", async () => {
    const { clock, at, made } = poll(0.5);
    made.stop();
    await clock.advance(5000);
    expect(at).toEqual([]);
  });
});
