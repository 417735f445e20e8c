import { jest } from "@jest/globals";
import { systemClock } from "../../../../lib/request/clock.ts";

describe("systemClock", () => {
  beforeEach(() => void jest.useFakeTimers());
  afterEach(() => void jest.useRealTimers());

  test("a timer fires after its time", () => {
    const fired: string[] = [];
    systemClock.setTimeout(() => fired.push("fired"), 1000);
    jest.advanceTimersByTime(999);
    expect(fired).toEqual([]);
    jest.advanceTimersByTime(1);
    expect(fired).toEqual(["fired"]);
  });

  test("a cleared timer does not fire", () => {
    const fired: string[] = [];
    systemClock.clearTimeout(systemClock.setTimeout(() => fired.push("fired"), 1000));
    jest.advanceTimersByTime(1000);
    expect(fired).toEqual([]);
  });

  test("a delay longer than Node's timers can hold does not fire at once", () => {
    const fired: string[] = [];
    systemClock.setTimeout(() => fired.push("fired"), 2 ** 40);
    jest.advanceTimersByTime(1000);
    expect(fired).toEqual([]);
  });

  test("now() goes on with time, in milliseconds", () => {
    const start = systemClock.now();
    jest.advanceTimersByTime(1500);
    expect(systemClock.now() - start).toBeCloseTo(1500);
  });
});
