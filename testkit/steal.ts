import { readFileSync } from "node:fs";

/**
 * Measures what share of this machine's time its hypervisor gives to other machines: what is timed meanwhile is not
 * ours. From `/proc/stat` (proc(5)); 0 where there is none.
 */
export function stealMeter(): () => number {
  const before = read();
  return () => {
    const after = read();
    return after.total > before.total ? (after.stolen - before.stolen) / (after.total - before.total) : 0;
  };
}

function read(): { readonly total: number; readonly stolen: number } {
  try {
    const [line = ""] = readFileSync("/proc/stat", "utf8").split("\n", 1);
    // user nice system idle iowait irq softirq steal; guest time is part of user time.
    const times = line.trim().split(/\s+/).slice(1, 9).map(Number);
    return { total: times.reduce((a, b) => a + b, 0), stolen: times[7] ?? 0 };
  } catch {
    return { total: 0, stolen: 0 };
  }
}
