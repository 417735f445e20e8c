import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { LoadMeter, type ProcessFigures, readCgroup, wholeCores } from "../../../../lib/load/cgroup.ts";

const GIB = 2 ** 30;

const roots: string[] = [];

afterAll(() => {
  for (const root of roots) rmSync(root, { recursive: true });
});

/** A temporary folder with these files. */
function tree(files: Readonly<Record<string, string>>): string {
  const root = mkdtempSync(join(tmpdir(), "cgroup-"));
  roots.push(root);
  write(root, files);
  return root;
}

function write(root: string, files: Readonly<Record<string, string>>): void {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
}

/** A machine of 8 cores and 64 GiB; the process's own figures can be moved. */
function machine() {
  const used = { cpu: 0, rss: 0 };
  const figures: ProcessFigures = {
    cores: 8,
    memoryBytes: 64 * GIB,
    cpuMicros: () => used.cpu,
    rssBytes: () => used.rss,
  };
  const clock = { ms: 0 };
  return { used, figures, clock, now: () => clock.ms };
}

const V2 = {
  "proc/self/cgroup": "0::/\n",
  "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
  "sys/fs/cgroup/cpu.max": "150000 100000\n",
  "sys/fs/cgroup/cpu.stat": "usage_usec 1000000\nuser_usec 900000\n",
  "sys/fs/cgroup/memory.max": `${2 * GIB}\n`,
  "sys/fs/cgroup/memory.current": `${GIB}\n`,
  "sys/fs/cgroup/memory.stat": `anon 5\ninactive_file ${GIB / 2}\n`,
};

const V1 = {
  "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n",
  "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
  "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
  "sys/fs/cgroup/cpu,cpuacct/cpuacct.usage": "1000000000\n",
  "sys/fs/cgroup/memory/memory.limit_in_bytes": `${2 * GIB}\n`,
  "sys/fs/cgroup/memory/memory.usage_in_bytes": `${GIB}\n`,
  "sys/fs/cgroup/memory/memory.stat": `inactive_file 7\ntotal_inactive_file ${GIB / 2}\n`,
};

describe("readCgroup", () => {
  const limits = (files: Readonly<Record<string, string>>) => readCgroup(tree(files), machine().figures);

  test("reads a fractional CPU limit and the memory limit of a v2 cgroup", () => {
    expect(limits(V2)).toEqual({ version: 2, cpuLimit: 1.5, memoryLimitBytes: 2 * GIB });
  });

  test("reads a v1 cgroup whose host path does not exist inside the container", () => {
    expect(limits(V1)).toEqual({ version: 1, cpuLimit: 0.5, memoryLimitBytes: 2 * GIB });
  });

  test("reads v1 controllers that are mounted apart", () => {
    expect(
      limits({
        "proc/self/cgroup": "2:cpuacct:/\n1:cpu:/\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/cpuacct/cpuacct.usage": "5",
      }).cpuLimit,
    ).toBe(3);
  });

  test("takes the tightest limit on the way up a nested v2 path", () => {
    expect(
      limits({
        "proc/self/cgroup": "0::/pod/app\n",
        "sys/fs/cgroup/cgroup.controllers": "cpu memory",
        "sys/fs/cgroup/pod/cpu.max": "200000 100000",
        "sys/fs/cgroup/pod/cpu.stat": "usage_usec 0",
        "sys/fs/cgroup/pod/app/cpu.max": "400000 100000",
        "sys/fs/cgroup/pod/app/cpu.stat": "usage_usec 0",
        "sys/fs/cgroup/pod/app/memory.max": `${GIB}`,
        "sys/fs/cgroup/pod/app/memory.current": "0",
      }),
    ).toEqual({ version: 2, cpuLimit: 2, memoryLimitBytes: GIB });
  });

  test("gives the machine's figures where a cgroup has no limit", () => {
    const unlimited = { ...V2, "sys/fs/cgroup/cpu.max": "max 100000", "sys/fs/cgroup/memory.max": "max" };
    expect(limits(unlimited)).toEqual({ version: 2, cpuLimit: 8, memoryLimitBytes: 64 * GIB });
    const v1 = {
      ...V1,
      "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
      "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
    };
    expect(limits(v1)).toEqual({ version: 1, cpuLimit: 8, memoryLimitBytes: 64 * GIB });
  });

  test("gives the machine's figures where there is no cgroup", () => {
    expect(limits({})).toEqual({ version: 0, cpuLimit: 8, memoryLimitBytes: 64 * GIB });
  });

  test.each([
    ["400000", "0-1", 2, 2],
    ["400000", "0,2,4-5", 4, 4],
    ["400000", "0-7", 4, 4],
    ["400000", "3", 1, 1],
    ["150000", "0-1", 1.5, 1],
    ["250000", "0-7", 2.5, 2],
    ["50000", "0-7", 0.5, 1],
    ["400000", "", 4, 4],
  ])("a quota of %s µs in 100000 on cores %s is %d cores and %i threads", (quota, cores, limit, threads) => {
    const { cpuLimit } = limits({
      ...V2,
      "sys/fs/cgroup/cpu.max": `${quota} 100000`,
      "proc/self/status": `Name:\tnode\nCpus_allowed:\tff\nCpus_allowed_list:\t${cores}\nThreads:\t7\n`,
    });
    expect([cpuLimit, wholeCores(cpuLimit)]).toEqual([limit, threads]);
  });

  test.each(["", "garbage", "-5 100000", "100000 0", "NaN NaN", "100000"])(
    "ignores a cpu.max of %j",
    (text) => {
      expect(limits({ ...V2, "sys/fs/cgroup/cpu.max": text }).cpuLimit).toBe(8);
    },
  );

  test.each(["", "garbage", "-1", "0"])("ignores a memory.max of %j", (text) => {
    expect(limits({ ...V2, "sys/fs/cgroup/memory.max": text }).memoryLimitBytes).toBe(64 * GIB);
  });

  test("does not follow a cgroup path out of the mount", () => {
    expect(limits({ ...V2, "proc/self/cgroup": "0::/../../etc\n" }).cpuLimit).toBe(1.5);
  });
});

describe("LoadMeter", () => {
  test("tells the v2 cgroup's CPU since the last sample, as a share of the limit", () => {
    const { figures, clock, now } = machine();
    const root = tree(V2);
    const meter = new LoadMeter({ root, figures, now });
    clock.ms = 1000;
    write(root, { "sys/fs/cgroup/cpu.stat": "usage_usec 1750000" });
    expect(meter.sample().cpu).toBeCloseTo(0.5);
    clock.ms = 3000;
    expect(meter.sample().cpu).toBe(0);
  });

  test("tells the v1 cgroup's CPU since the last sample, as a share of the limit", () => {
    const { figures, clock, now } = machine();
    const root = tree(V1);
    const meter = new LoadMeter({ root, figures, now });
    clock.ms = 1000;
    write(root, { "sys/fs/cgroup/cpu,cpuacct/cpuacct.usage": "1250000000" });
    expect(meter.sample().cpu).toBeCloseTo(0.5);
  });

  test.each([V1, V2])("leaves file cache that can be dropped out of the memory", (files) => {
    const { figures, clock, now } = machine();
    const meter = new LoadMeter({ root: tree(files), figures, now });
    clock.ms = 1000;
    expect(meter.sample().memory).toBeCloseTo(0.25);
  });

  test("tells the process's own figures where no cgroup limits it, whatever the others in the cgroup use", () => {
    const { used, figures, clock, now } = machine();
    const root = tree({ ...V2, "sys/fs/cgroup/cpu.max": "max 100000", "sys/fs/cgroup/memory.max": "max" });
    const meter = new LoadMeter({ root, figures, now });
    clock.ms = 1000;
    used.cpu = 2_000_000;
    used.rss = 16 * GIB;
    write(root, { "sys/fs/cgroup/cpu.stat": "usage_usec 9000000" });
    expect(meter.sample()).toEqual({ cpu: 0.25, wait: 0, memory: 0.25 });
  });

  test("counts the children of a process that no cgroup limits, in everything", () => {
    const { used, figures, clock, now } = machine();
    const child = (ticks: number) => ({
      "proc/70/stat": `70 (node (a) b) R 1 1 1 0 -1 4194304 1 2 3 4 ${ticks} ${ticks} 0 0 20 0 7 0`,
      "proc/70/statm": `900000 ${(3 * GIB) / 4096} ${GIB / 4096} 1 0 1 0`,
      "proc/70/task/70/schedstat": `${ticks * 1e7} ${ticks * 1e7} 9`,
    });
    const root = tree({ "proc/self/task/1/children": "70 71 \n", ...child(0) });
    const meter = new LoadMeter({ root, figures, now });
    clock.ms = 1000;
    used.cpu = 1_000_000;
    used.rss = 14 * GIB;
    write(root, child(50));
    const { cpu, memory, wait } = meter.sample();
    expect([cpu, memory]).toEqual([0.25, 0.25]);
    expect(wait).toBeGreaterThan(0.4);
  });

  test("never leaves 0 to 1", () => {
    const { figures, clock, now } = machine();
    const root = tree(V2);
    const meter = new LoadMeter({ root, figures, now });
    clock.ms = 1;
    write(root, {
      "sys/fs/cgroup/cpu.stat": "usage_usec 99000000",
      "sys/fs/cgroup/memory.current": `${9 * GIB}`,
    });
    expect(meter.sample()).toMatchObject({ cpu: 1, memory: 1 });
    clock.ms = 2;
    write(root, { "sys/fs/cgroup/cpu.stat": "usage_usec 5", "sys/fs/cgroup/memory.current": "1" });
    expect(meter.sample()).toMatchObject({ cpu: 0, memory: 0 });
  });

  test("repeats its last sample while the clock stands still", () => {
    const { used, figures, clock, now } = machine();
    const meter = new LoadMeter({ root: tree({}), figures, now });
    clock.ms = 1000;
    used.cpu = 4_000_000;
    const sample = meter.sample();
    used.cpu = 8_000_000;
    expect(meter.sample()).toEqual(sample);
    expect(sample.cpu).toBe(0.5);
  });

  test("keeps the last CPU figure when its file goes away", () => {
    const { figures, clock, now } = machine();
    const root = tree(V2);
    const meter = new LoadMeter({ root, figures, now });
    clock.ms = 1000;
    write(root, { "sys/fs/cgroup/cpu.stat": "usage_usec 1750000" });
    meter.sample();
    rmSync(join(root, "sys/fs/cgroup/cpu.stat"));
    clock.ms = 2000;
    expect(meter.sample().cpu).toBeCloseTo(0.5);
  });

  describe("waiting for a core", () => {
    /** The wait figure after a second in which these threads (`ID: "ran waited timeslices"`, ns) went on. */
    function waited(
      before: Readonly<Record<string, string>>,
      after: Readonly<Record<string, string>>,
    ): number {
      const files = (threads: Readonly<Record<string, string>>) =>
        Object.fromEntries(
          Object.entries(threads).map(([id, text]) => [`proc/self/task/${id}/schedstat`, text]),
        );
      const { figures, clock, now } = machine();
      const root = tree(files(before));
      const meter = new LoadMeter({ root, figures, now });
      clock.ms = 1000;
      write(root, files(after));
      return meter.sample().wait;
    }

    test("is about half when a neighbour takes every other slice", () => {
      expect(waited({ 1: "0 0 0" }, { 1: "500000000 500000000 9" })).toBeCloseTo(0.498, 3);
    });

    test("adds up over the threads", () => {
      const one = waited({ 1: "0 0 0" }, { 1: "400000000 100000000 9" });
      const two = waited(
        { 1: "0 0 0", 2: "0 0 0" },
        { 1: "400000000 100000000 9", 2: "100000000 300000000 9" },
      );
      expect(two).toBeGreaterThan(one);
    });

    test("is small for a process that hardly runs", () => {
      expect(waited({ 1: "0 0 0" }, { 1: "100000 400000 9" })).toBeLessThan(0.1);
    });

    test("falls by and by when the neighbour has gone", () => {
      const { figures, clock, now } = machine();
      const root = tree({ "proc/self/task/1/schedstat": "0 0 0" });
      const meter = new LoadMeter({ root, figures, now });
      const waits = [0, 1, 2, 3].map((second) => {
        clock.ms += 1000;
        write(root, { "proc/self/task/1/schedstat": `${(second + 1) * 300e6} 600000000 9` });
        return meter.sample().wait;
      });
      expect(waits[0]).toBeGreaterThan(0.6);
      expect(waits).toEqual(waits.toSorted((a, b) => b - a));
      expect(waits[3]).toBeLessThan(0.2);
    });

    test("leaves out threads that came in between", () => {
      expect(waited({ 1: "0 0 0" }, { 1: "1000000 0 9", 2: "0 900000000 9" })).toBe(0);
    });

    test("is none where the kernel tells nothing or nonsense", () => {
      expect(waited({}, {})).toBe(0);
      expect(waited({ 1: "x y z" }, { 1: "" })).toBe(0);
    });
  });
});

test("this very process has at least a fraction of a core and some memory", () => {
  const { cpuLimit, memoryLimitBytes } = readCgroup();
  expect(cpuLimit).toBeGreaterThan(0);
  expect(memoryLimitBytes).toBeGreaterThan(0);
});
