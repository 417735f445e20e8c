import { readdirSync, readFileSync } from "node:fs";

/** A process and all that it started, and those did: process IDs. Linux only. */
export function family(pid: number): number[] {
  const parents = new Map<number, number>();
  for (const entry of readdirSync("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    const stat = read(`/proc/${entry}/stat`);
    // Behind the name, which may hold anything: the state, then the parent (proc(5)).
    parents.set(Number(entry), Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]));
  }
  const found = [pid];
  for (const member of found) {
    for (const [child, parent] of parents) if (parent === member) found.push(child);
  }
  return found;
}

/** Memory of its own that a process and its family hold, bytes: without the code and files they share. */
export function privateMemory(pid: number): number {
  return family(pid).reduce((sum, member) => {
    const kilobytes = /^RssAnon:\s+(\d+) kB$/m.exec(read(`/proc/${member}/status`))?.[1] ?? 0;
    return sum + Number(kilobytes) * 1024;
  }, 0);
}

function read(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return ""; // It has ended in between.
  }
}
