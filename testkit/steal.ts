import { readFileSync } from "node:fs";

/** Of the kernel's clock in /proc: USER_HZ, 100 on Linux. */
const TICKS_PER_SECOND = 100;

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

/** Measures the CPU seconds that this machine's processes use, all together; 0 where there is no `/proc/stat`. */
export function cpuMeter(): () => number {
  const before = read();
  return () => (read().used - before.used) / TICKS_PER_SECOND;
}

/** Ticks of all cores. */
function read(): { readonly total: number; readonly stolen: number; readonly used: number } {
  try {
    const [line = ""] = readFileSync("/proc/stat", "utf8").split("\n", 1);
    // user nice system idle iowait irq softirq steal; guest time is part of user time.
    const times = line.trim().split(/\s+/).slice(1, 9).map(Number);
    const [user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, stolen = 0] = times;
    const used = user + nice + system + irq + softirq;
    return { total: used + idle + iowait + stolen, stolen, used };
  } catch {
    return { total: 0, stolen: 0, used: 0 };
  }
}
