import { type ChildProcess, fork } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { flushCompileCache, getCompileCacheDir } from "node:module";
import { dirname } from "node:path";

/**
 * What of the environment a child gets: where things are, not what this process may do. Foreign input is read there,
 * and passwords of RabbitMQ or Redis have no business in it.
 */
const INHERITED = [
  "PATH",
  "HOME",
  "TMPDIR",
  "TZ",
  "LANG",
  "LC_ALL",
  "LD_LIBRARY_PATH",
  "LD_PRELOAD",
  "NODE_ENV",
];

export interface ChildOptions {
  /** On top of what it inherits. */
  readonly env?: Readonly<Record<string, string>>;
  /** Flags of Node. */
  readonly flags?: readonly string[];
  /**
   * Whether `stderr` can be read. Else it prints nowhere: what foreign input makes native libraries say is not for our
   * log.
   * @default false
   */
  readonly stderr?: boolean;
}

const SETPRIV = "/usr/bin/setpriv";
const HAS_SETPRIV = existsSync(SETPRIV);

/**
 * How to start a program so that it dies with this process. Where there is this command (util-linux), it has the kernel
 * kill the child when this process dies: a child that computes without end does not notice that its parent is gone.
 */
export function tied(path: string): { readonly path: string; readonly args: readonly string[] } {
  return HAS_SETPRIV ? { path: SETPRIV, args: ["--pdeathsig", "KILL", path] } : { path, args: [] };
}

/** What of this process's environment a child gets. */
export function inheritedEnv(): Record<string, string> {
  const inherited = INHERITED.flatMap((name) => {
    const value = process.env[name];
    return value === undefined ? [] : [[name, value] as const];
  });
  return Object.fromEntries(inherited);
}

/**
 * MiB. What a child throws away are messages, whose bytes lie outside of V8's heap: with V8's own 16 MiB for young
 * objects it clears them away so seldom that 50 MB of them pile up.
 */
const YOUNG_GENERATION = "--max-semi-space-size=1";

/**
 * Starts a module as a process of its own, with a channel that keeps typed arrays. It keeps nobody alive: see
 * {@link hold}.
 */
export function startChild(
  module: URL,
  { env = {}, flags = [], stderr = false }: ChildOptions = {},
): ChildProcess {
  const starter = tied(process.execPath);
  // What this process has stripped and compiled the child need not do again: 20 MB less and a tenth of a second.
  const cache = getCompileCacheDir();
  const child = fork(module, {
    serialization: "advanced",
    execPath: starter.path,
    execArgv: [...starter.args, YOUNG_GENERATION, ...flags],
    env: {
      ...inheritedEnv(),
      ...(cache ? { NODE_COMPILE_CACHE: dirname(cache) } : {}),
      ...env,
    },
    stdio: ["ignore", "ignore", stderr ? "pipe" : "ignore", "ipc"],
  });
  // A channel whose other end died says so here; that the child is gone, "exit" says.
  child.on("error", () => {});
  hold(child, false);
  return child;
}

/** Whether this process stays alive for the child's next word. */
export function hold(child: ChildProcess, held: boolean): void {
  if (held) {
    child.ref();
    child.channel?.ref();
  } else {
    child.unref();
    child.channel?.unref();
  }
}

/** Of 1000: when memory runs out, the kernel ends this process before its parent, who replaces it. */
const EXPENDABLE = "800";

/**
 * For the child's first line. It ends when its parent does, however that ended, and not before: signals to the whole
 * group (Ctrl-C, a service manager's SIGTERM) are the parent's to answer, who still has work for it. By SIGKILL, as an
 * exit would wait for native code that may never return.
 */
export function serveParent(): void {
  process.on("disconnect", () => process.kill(process.pid, "SIGKILL"));
  process.on("SIGTERM", () => {});
  process.on("SIGINT", () => {});
  // At its exit Node does so itself, but a child may be killed.
  setImmediate(flushCompileCache);
  try {
    writeFileSync("/proc/self/oom_score_adj", EXPENDABLE);
  } catch {
    // Not Linux.
  }
}

/** What a process uses, as the kernel says. */
export interface Usage {
  /** Resident memory, bytes. */
  readonly memoryBytes: number;
  /** CPU time so far, milliseconds. */
  readonly cpuMs: number;
}

/** Ticks of /proc's times a second; Linux shows user space 100 on every architecture. */
const TICKS_PER_SECOND = 100;

/** What a process uses at this moment; undefined where there is no such process, or no /proc (all but Linux). */
export function usageOf(pid: number): Usage | undefined {
  try {
    const memory = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1];
    // Behind the name, which may hold spaces and brackets: state is field 3, utime 14 and stime 15 (proc(5)).
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const ticks = Number(fields[11]) + Number(fields[12]);
    if (memory === undefined || !Number.isFinite(ticks)) return undefined;
    return { memoryBytes: Number(memory) * 1024, cpuMs: (ticks * 1000) / TICKS_PER_SECOND };
  } catch {
    return undefined;
  }
}
