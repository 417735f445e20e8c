import { usageOf } from "../../../../lib/process/child.ts";

test("tells memory and CPU time of a process as Node does of its own", () => {
  const end = performance.now() + 60;
  while (performance.now() < end);
  const usage = usageOf(process.pid);
  const { user, system } = process.cpuUsage();
  expect((usage?.memoryBytes ?? 0) / process.memoryUsage.rss()).toBeCloseTo(1, 1);
  // The kernel's ticks are 10 ms each.
  expect(Math.abs((usage?.cpuMs ?? 0) - (user + system) / 1000)).toBeLessThan(100);
});

test("says nothing of a process that is not there", () => {
  expect(usageOf(2 ** 30)).toBeUndefined();
});
