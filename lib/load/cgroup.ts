import { readdirSync, readFileSync } from "node:fs";
import { availableParallelism, cpus, totalmem } from "node:os";
import { join } from "node:path";

/** What this process may use. Without a limit of its own that is the machine. */
export interface Limits {
  /** Version of the cgroup hierarchy that was read; 0: none. */
  readonly version: 0 | 1 | 2;
  /** Cores; a fraction is possible (`1.5`). */
  readonly cpuLimit: number;
  readonly memoryLimitBytes: number;
}

/** What the operating system says of the machine and of this process: injected in tests. */
export interface ProcessFigures {
  readonly cores: number;
  readonly memoryBytes: number;
  /** CPU time of the whole process so far, in microseconds. */
  cpuMicros(): number;
  /** Resident memory of the process. */
  rssBytes(): number;
}

const PROCESS: ProcessFigures = {
  cores: availableParallelism(),
  memoryBytes: totalmem(),
  cpuMicros: () => {
    const { user, system } = process.cpuUsage();
    return user + system;
  },
  rssBytes: () => process.memoryUsage.rss(),
};

/** A limit and how to read what is used of it; the reader gives `undefined` where the file is gone. */
interface Limited {
  readonly limit: number;
  used(): number | undefined;
}

interface Cgroup {
  readonly version: 0 | 1 | 2;
  readonly cpu?: Limited;
  readonly memory?: Limited;
}

/**
 * The limits of the cgroup of this process, v2 or v1; those of the machine where there is no cgroup or it has no
 * limit.
 *
 * @param root folder that holds `proc` and `sys`
 */
export function readCgroup(root = "/", figures: ProcessFigures = PROCESS): Limits {
  const { version, cpu, memory } = locate(root, figures);
  return {
    version,
    cpuLimit: cpu?.limit ?? figures.cores,
    memoryLimitBytes: memory?.limit ?? figures.memoryBytes,
  };
}

/** Cores this process may use: how many threads are worth having. The host's cores are not ours to count. */
export function cpuLimit(): number {
  return readCgroup().cpuLimit;
}

/** The whole cores of a limit, at least 1: a further thread would be one too many for most of the time. */
export function wholeCores(limit = cpuLimit()): number {
  return Math.max(1, Math.floor(limit));
}

export interface LoadSample {
  /** CPU time used since the last sample, as a share of the limit: 0 to 1. */
  readonly cpu: number;
  /**
   * Share of the time the threads of this process wanted a core that they waited for one: 0 to 1. At 0.5 everything
   * takes twice its time. It shows what CPU time alone cannot: a neighbour on the same cores, or a used-up quota.
   * Smoothed over the last few samples.
   */
  readonly wait: number;
  /** Memory that cannot be reclaimed, as a share of the limit: 0 to 1. */
  readonly memory: number;
}

export interface LoadMeterOptions {
  /**
   * Folder that holds `proc` and `sys`.
   * @default "/"
   */
  readonly root?: string;
  /**
   * A clock in milliseconds that never goes back.
   * @default performance.now
   */
  readonly now?: () => number;
  /** @default those of this process */
  readonly figures?: ProcessFigures;
}

/** So much of every interval counts as time it ran: a process that hardly does has no figure worth telling. */
const WAIT_FLOOR = 0.005;

/**
 * Load of this node: the pod's where a cgroup limits it (a pod is one node), else this process's own, so that nodes
 * side by side on a developer's machine tell their own load and not the sum.
 */
export class LoadMeter {
  readonly #now: () => number;
  readonly #root: string;
  readonly #cpu: Limited;
  readonly #memory: Limited;
  #at: number;
  #cpuMicros: number;
  #threads: ReadonlyMap<string, Schedstat>;
  /** Of all intervals so far, each counting half as much as the one after it. */
  #scheduled: Schedstat = { ran: 0, waited: 0 };
  #last: LoadSample = { cpu: 0, wait: 0, memory: 0 };

  constructor({ root = "/", now = () => performance.now(), figures = PROCESS }: LoadMeterOptions = {}) {
    const { cpu, memory } = locate(root, figures);
    this.#now = now;
    this.#root = root;
    this.#cpu = cpu ?? { limit: figures.cores, used: () => figures.cpuMicros() + childCpuMicros(root) };
    this.#memory = memory ?? {
      limit: figures.memoryBytes,
      used: () => figures.rssBytes() + childRssBytes(root),
    };
    this.#at = now();
    this.#cpuMicros = this.#cpu.used() ?? 0;
    this.#threads = readThreads(root);
  }

  /** Figures since the last call (the first time: since construction). What cannot be read stays as it was. */
  sample(): LoadSample {
    const now = this.#now();
    const elapsedMicros = (now - this.#at) * 1000;
    if (elapsedMicros <= 0) return this.#last;
    const used = this.#cpu.used();
    const memory = this.#memory.used();
    const threads = readThreads(this.#root);
    const { ran, waited } = difference(this.#threads, threads);
    this.#scheduled = {
      ran: this.#scheduled.ran / 2 + ran + WAIT_FLOOR * elapsedMicros,
      waited: this.#scheduled.waited / 2 + waited,
    };
    this.#last = {
      cpu:
        used === undefined ? this.#last.cpu : share(used - this.#cpuMicros, elapsedMicros * this.#cpu.limit),
      wait: this.#scheduled.waited / (this.#scheduled.ran + this.#scheduled.waited),
      memory: memory === undefined ? this.#last.memory : share(memory, this.#memory.limit),
    };
    this.#at = now;
    this.#cpuMicros = used ?? this.#cpuMicros;
    this.#threads = threads;
    return this.#last;
  }
}

function share(part: number, whole: number): number {
  return Math.min(1, Math.max(0, part / whole));
}

/** A thread's time on a core and its time ready to run but without one, in microseconds. */
interface Schedstat {
  readonly ran: number;
  readonly waited: number;
}

/** Of this process and its children, by thread ID. Empty where the kernel does not tell. */
function readThreads(root: string): ReadonlyMap<string, Schedstat> {
  const threads = new Map<string, Schedstat>();
  for (const process of ["self", ...childIds(root)]) {
    const folder = join(root, "proc", process, "task");
    for (const thread of list(folder)) {
      const [ran, waited] = (read(join(folder, thread, "schedstat")) ?? "").split(" ").map(Number);
      if (isCount(ran) && isCount(waited)) threads.set(thread, { ran: ran / 1000, waited: waited / 1000 });
    }
  }
  return threads;
}

/** Engines and decoders are processes of this one: what they use is its load. */
function childIds(root: string): readonly string[] {
  const folder = join(root, "proc/self/task");
  return list(folder).flatMap((thread) =>
    (read(join(folder, thread, "children")) ?? "").split(" ").filter((id) => /^\d+$/.test(id)),
  );
}

/** Linux shows user space a hundred ticks a second and pages of this size, whatever the processor's. */
const TICK_MICROS = 10_000;
const PAGE_BYTES = 4_096;

/** CPU time of the children that live. */
function childCpuMicros(root: string): number {
  const ticks = childIds(root).map((id) => {
    const stat = read(join(root, "proc", id, "stat")) ?? "";
    // Behind the name, which may hold spaces and brackets: utime is field 14 and stime 15 (proc(5)).
    const [utime, stime] = stat
      .slice(stat.lastIndexOf(")") + 2)
      .split(" ")
      .slice(11, 13)
      .map(Number);
    return isCount(utime) && isCount(stime) ? utime + stime : 0;
  });
  return ticks.reduce((sum, each) => sum + each, 0) * TICK_MICROS;
}

/** Memory of the children that live, without what they share. */
function childRssBytes(root: string): number {
  const pages = childIds(root).map((id) => {
    const [, resident, shared] = (read(join(root, "proc", id, "statm")) ?? "").split(" ").map(Number);
    return isCount(resident) && isCount(shared) ? resident - shared : 0;
  });
  return pages.reduce((sum, each) => sum + each, 0) * PAGE_BYTES;
}

/** What the threads did in between; those that came or went are left out. */
function difference(
  before: ReadonlyMap<string, Schedstat>,
  after: ReadonlyMap<string, Schedstat>,
): Schedstat {
  let ran = 0;
  let waited = 0;
  for (const [thread, now] of after) {
    const then = before.get(thread);
    if (!then) continue;
    ran += Math.max(0, now.ran - then.ran);
    waited += Math.max(0, now.waited - then.waited);
  }
  return { ran, waited };
}

function locate(root: string, figures: ProcessFigures): Cgroup {
  const paths = controllerPaths(read(join(root, "proc/self/cgroup")) ?? "");
  const mount = join(root, "sys/fs/cgroup");
  const v2 = read(join(mount, "cgroup.controllers")) !== undefined;
  const limits = v2 ? limitsV2(mount, paths.get("") ?? "/") : limitsV1(mount, paths);
  // `cpus()` and not `figures.cores`: Node rounds a fractional quota down there.
  const cpu = atMost(allowedCores(root), tightest(limits.cpu, Math.max(figures.cores, cpus().length)));
  const memory = tightest(limits.memory, figures.memoryBytes);
  const version = v2 ? 2 : list(mount).length > 0 ? 1 : 0;
  return { version, ...(cpu ? { cpu } : {}), ...(memory ? { memory } : {}) };
}

interface Levels {
  readonly cpu: readonly Limited[];
  readonly memory: readonly Limited[];
}

function limitsV2(mount: string, path: string): Levels {
  const folders = upwards(mount, path);
  return {
    cpu: folders.flatMap((folder) =>
      limited(quota(...pair(read(join(folder, "cpu.max")))), () => field(folder, "cpu.stat", "usage_usec")),
    ),
    memory: folders.flatMap((folder) =>
      limited(number(folder, "memory.max"), () => workingSet(folder, "memory.current", "inactive_file")),
    ),
  };
}

/** The CPU controllers are mounted together (`cpu,cpuacct`), mostly with a link for each, or apart. */
function limitsV1(mount: string, paths: ReadonlyMap<string, string>): Levels {
  const cpu = ["cpu", "cpu,cpuacct"].flatMap((name) =>
    upwards(join(mount, name), paths.get("cpu") ?? "/").flatMap((folder) => {
      const accounts = name === "cpu" ? folder.replace(join(mount, name), join(mount, "cpuacct")) : folder;
      return limited(quota(number(folder, "cpu.cfs_quota_us"), number(folder, "cpu.cfs_period_us")), () => {
        const nanos = number(accounts, "cpuacct.usage");
        return nanos === undefined ? undefined : nanos / 1000;
      });
    }),
  );
  const memory = upwards(join(mount, "memory"), paths.get("memory") ?? "/").flatMap((folder) =>
    limited(number(folder, "memory.limit_in_bytes"), () =>
      workingSet(folder, "memory.usage_in_bytes", "total_inactive_file"),
    ),
  );
  return { cpu, memory };
}

function limited(limit: number | undefined, used: () => number | undefined): readonly Limited[] {
  return limit !== undefined && limit > 0 && used() !== undefined ? [{ limit, used }] : [];
}

/** The lowest limit on the way up is the one that bites. One as large as the machine is none. */
function tightest(levels: readonly Limited[], machine: number): Limited | undefined {
  const [first] = levels.filter(({ limit }) => limit < machine).sort((a, b) => a.limit - b.limit);
  return first;
}

/** A quota may be larger than what the cores of a cpuset can use of it. */
function atMost(cores: number, limited: Limited | undefined): Limited | undefined {
  return limited && { ...limited, limit: Math.min(limited.limit, cores) };
}

/** Cores that the process may run on (`0-3,8`); Infinity where the kernel does not say. */
function allowedCores(root: string): number {
  const [, list] = /^Cpus_allowed_list:\s*([\d,-]+)$/m.exec(read(join(root, "proc/self/status")) ?? "") ?? [];
  if (list === undefined) return Number.POSITIVE_INFINITY;
  return list.split(",").reduce((sum, range) => {
    const [first = 0, last = first] = range.split("-").map(Number);
    return sum + last - first + 1;
  }, 0);
}

/** Path by controller name out of `/proc/self/cgroup` (`4:memory:/a/b`); v2's has the empty name. */
function controllerPaths(text: string): ReadonlyMap<string, string> {
  const paths = new Map<string, string>();
  for (const line of text.split("\n")) {
    const [, names, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    if (names === undefined || path === undefined) continue;
    for (const name of names.split(",")) paths.set(name, path);
  }
  return paths;
}

/**
 * The folder of `path` and every one above it up to the mount. In a container without a cgroup namespace the path
 * is the host's and does not exist below the mount, which then is the container's own cgroup.
 */
function upwards(mount: string, path: string): readonly string[] {
  const parts = path.split("/").filter((part) => part !== "");
  if (parts.includes("..")) return [mount];
  return parts.map((_, index) => join(mount, ...parts.slice(0, parts.length - index))).concat(mount);
}

/** Cores, from microseconds of CPU time in each period. */
function quota(micros: number | undefined, period: number | undefined): number | undefined {
  return micros !== undefined && period !== undefined && period > 0 ? micros / period : undefined;
}

function pair(text: string | undefined): [number | undefined, number | undefined] {
  const [first, second] = (text ?? "").split(" ").map(Number);
  return [isCount(first) ? first : undefined, isCount(second) ? second : undefined];
}

/**
 * As the kubelet counts a pod's memory, its working set: without the file cache that the kernel can drop at once.
 */
function workingSet(folder: string, usage: string, inactive: string): number | undefined {
  const bytes = number(folder, usage);
  return bytes === undefined ? undefined : Math.max(0, bytes - (field(folder, "memory.stat", inactive) ?? 0));
}

function number(folder: string, file: string): number | undefined {
  const text = read(join(folder, file));
  const value = Number(text);
  return text !== undefined && text !== "" && isCount(value) ? value : undefined;
}

/** The number behind `name` in a file of `name number` lines. */
function field(folder: string, file: string, name: string): number | undefined {
  const line = read(join(folder, file))
    ?.split("\n")
    .find((candidate) => candidate.startsWith(`${name} `));
  const value = Number(line?.slice(name.length));
  return line !== undefined && isCount(value) ? value : undefined;
}

function isCount(value: number | undefined): value is number {
  return value !== undefined && Number.isFinite(value) && value >= 0;
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined;
  }
}

function list(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
