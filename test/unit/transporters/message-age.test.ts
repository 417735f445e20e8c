import { MessageAge } from "../../../transporters/message-age.ts";

/** A receiver whose clock stands where the test puts it; senders' clocks are `offset` behind it. */
function receiver(offset: number) {
  const clock = { now: 1000 };
  const age = new MessageAge(() => clock.now);
  return {
    /** A message that takes `ms` from sender to receiver. */
    hear(ms: number, sender = "s"): number {
      const at = clock.now - offset;
      clock.now += ms;
      return age.of(sender, at);
    },
    wait(ms: number) {
      clock.now += ms;
    },
  };
}

test.each([0, 10_000, -10_000, 1e9])(
  "waiting time is seen though the sender's clock is %d ms behind",
  (offset) => {
    const { hear, wait } = receiver(offset);
    hear(1);
    wait(100);
    const age = hear(3001);
    expect(age).toBeGreaterThan(0.98 * 3000);
    expect(age).toBeLessThanOrEqual(3000);
    expect(hear(1)).toBe(0);
  },
);

test("a first message counts as young, however old it is", () => {
  const { hear } = receiver(0);
  expect(hear(3000)).toBe(0);
});

test("a younger message corrects what an old one made believe", () => {
  const { hear } = receiver(0);
  hear(3000);
  hear(1);
  expect(hear(1000)).toBeGreaterThan(0.98 * 999);
});

test("never makes a message older than it is while the sender's clock runs", () => {
  const { hear, wait } = receiver(123);
  for (const ms of [5, 900, 1, 4000, 2, 30, 1, 800]) {
    expect(hear(ms)).toBeLessThanOrEqual(ms);
    wait(500);
  }
});

test("a sender whose clock was paused is believed again after a while", () => {
  const clock = { now: 0 };
  const age = new MessageAge(() => clock.now);
  age.of("s", 0);
  // Its clock stood still for a second, then goes on: everything looks a second old.
  const ages: number[] = [];
  for (clock.now = 3000; clock.now <= 123_000; clock.now += 2000) ages.push(age.of("s", clock.now - 1000));
  expect(ages[0]).toBeGreaterThan(900);
  expect(ages.at(-1)).toBe(0);
});

test("a sender whose clock fell back is found out by a message that cannot be as old as it looks", () => {
  const clock = { now: 0 };
  const age = new MessageAge(() => clock.now);
  age.of("s", 0);
  // It stood still for half a minute.
  clock.now = 40_000;
  expect(age.of("s", 10_000)).toBeGreaterThan(29_000);
  expect(age.of("s", 10_000, 1500)).toBe(1500);
  clock.now = 41_000;
  expect(age.of("s", 11_000)).toBeLessThanOrEqual(1500);
  expect(age.of("s", 12_500)).toBe(0);
  expect(age.of("s", 11_000)).toBe(1500);
});

test("senders are told apart, and the longest silent of too many is forgotten", () => {
  const { hear, wait } = receiver(0);
  hear(1, "first");
  wait(1);
  for (let i = 0; i < 9999; i++) hear(1, `other-${i}`);
  // Two thousand in turn are all remembered.
  expect(hear(500, "first")).toBeGreaterThan(350);
  hear(1, "one more");
  expect(hear(500, "other-9998")).toBeGreaterThan(400);
  expect(hear(500, "other-0")).toBe(0);
});
