import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { EngineProcess, type EngineProcessOptions } from "../../../../lib/engines/process.ts";
import type { EngineCrashedError } from "../../../../lib/errors.ts";
import { ENDLESS, isAlive, unrulyItem, unrulySpec } from "../../../../testkit/engines.ts";
import { eventually } from "../../../../testkit/eventually.ts";
import { unrulyModel } from "../../../../testkit/onnx.ts";

const ONNX = new URL("../../../../lib/engines/onnx.ts", import.meta.url).href;
const NEVER = { deadline: Number.POSITIVE_INFINITY };
const LOAD = () => AbortSignal.timeout(30_000);
/** For tests that compute, where others compute, too: milliseconds. */
const LONG = 120_000;

const engines: EngineProcess[] = [];
const specs: ReturnType<typeof unrulySpec>[] = [];

/** An engine with the real runtime; `file`: its ONNX file. */
function engine(options: Partial<EngineProcessOptions> & { file?: Uint8Array } = {}): EngineProcess {
  const spec = unrulySpec(options.file);
  specs.push(spec);
  const made = new EngineProcess(ONNX, spec, { name: "unruly", ...options });
  engines.push(made);
  return made;
}

async function loaded(options: Partial<EngineProcessOptions> = {}): Promise<EngineProcess> {
  const made = engine(options);
  await made.load(LOAD());
  // So that what a run takes is measured.
  await made.run(unrulyItem(1), 1, NEVER);
  return made;
}

/** A run that goes on for as long as it is let, once it has begun. */
async function endless(of: EngineProcess): Promise<{ readonly run: Promise<unknown> }> {
  const run = of.run(unrulyItem(1, { loops: ENDLESS }), 1, NEVER);
  run.catch(() => {});
  const spent = cpuTicks(of.pid ?? 0);
  await eventually(() => expect(cpuTicks(of.pid ?? 0)).toBeGreaterThan(spent + 5));
  return { run };
}

/** User time of a process, in hundredths of a second. */
function cpuTicks(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ")[11]);
}

afterEach(async () => {
  await Promise.all(engines.splice(0).map((made) => made.close()));
  for (const spec of specs.splice(0)) spec[Symbol.dispose]();
});

describe("an engine with the real runtime", () => {
  test("says what its model takes and gives, and computes", async () => {
    const made = engine();
    expect(await made.load(LOAD())).toEqual({
      engine: expect.stringMatching(/^ONNX Runtime \d/),
      inputs: [
        { name: "x", dtype: "float32", shape: [2] },
        { name: "loops", dtype: "int64", shape: [1] },
        { name: "floats", dtype: "int64", shape: [1] },
      ],
      outputs: [{ name: "y", dtype: "float32", shape: [2] }],
    });
    expect(await made.run(unrulyItem(3), 1, NEVER)).toEqual({
      y: { dtype: "float32", shape: [1, 2], data: Float32Array.of(6, 6) },
    });
  });

  test("says that its model takes batches of one size only", async () => {
    const made = engine({ file: unrulyModel({ batch: 1 }) });
    expect(await made.load(LOAD())).toMatchObject({ fixedBatch: 1 });
  });

  test.each([
    ["SIGKILL", true],
    ["SIGSEGV", false],
    ["SIGABRT", false],
  ] as const)(
    "%s in a run fails that run with a retryable error; killed by someone else: %s",
    async (signal, killed) => {
      const made = await loaded();
      const { run } = await endless(made);
      process.kill(made.pid ?? 0, signal);
      await expect(run).rejects.toMatchObject({ type: "ENGINE_CRASHED", retryable: true, killed });
      expect(await made.gone).toContain(signal);
    },
  );

  test(
    "one that is stopped in a run is killed after what its runs were measured to take",
    async () => {
      const made = await loaded();
      const pid = made.pid ?? 0;
      process.kill(pid, "SIGSTOP");
      await expect(made.run(unrulyItem(1), 1, NEVER)).rejects.toMatchObject({
        type: "ENGINE_CRASHED",
        killed: false,
        message: expect.stringContaining("took far longer"),
      });
      await eventually(() => expect(isAlive(pid)).toBe(false));
    },
    LONG,
  );

  test(
    "one that computes for ever is killed, too",
    async () => {
      const made = await loaded();
      const { run } = await endless(made);
      await expect(run).rejects.toMatchObject({ type: "ENGINE_CRASHED" });
    },
    LONG,
  );

  test(
    "one that only gets too little of a core is not killed",
    async () => {
      const made = await loaded();
      const pid = made.pid ?? 0;
      const [, core = ""] =
        /^Cpus_allowed_list:\s*(\d+)/m.exec(readFileSync("/proc/self/status", "utf8")) ?? [];
      execFileSync("taskset", ["-a", "-p", "-c", core, String(pid)], { stdio: "ignore" });
      const hogs = Array.from({ length: 4 }, () =>
        spawn("taskset", ["-c", core, process.execPath, "-e", "for (;;);"], { stdio: "ignore" }),
      );
      try {
        await eventually(() => {
          for (const { pid } of hogs) expect(cpuTicks(pid ?? 0)).toBeGreaterThan(5);
        });
        // A second or more of compute, which now takes five: its limit is two.
        const began = performance.now();
        expect(await made.run(unrulyItem(1, { loops: 1.2e6 }), 1, NEVER)).toHaveProperty("y");
        expect(performance.now() - began).toBeGreaterThan(3_000);
      } finally {
        for (const hog of hogs) hog.kill("SIGKILL");
      }
    },
    LONG,
  );

  test("one that takes more memory than it may is killed", async () => {
    const limit = 250 * 2 ** 20;
    const made = await loaded({ maxMemoryBytes: limit });
    const hungry = made.run(unrulyItem(1, { floats: limit / 4 }), 1, NEVER).catch(() => {});
    expect(await made.gone).toMatch(/it took \d+ MB of memory, and may have 250/);
    await hungry;
  });

  test("what the runtime refuses fails that run alone, and says no path of ours", async () => {
    const made = await loaded();
    await expect(made.run(unrulyItem(1, { floats: 2 ** 44 }), 1, NEVER)).rejects.toMatchObject({
      type: "PREDICTION_FAILED",
      message: expect.not.stringContaining("/"),
    });
    expect(await made.run(unrulyItem(1), 1, NEVER)).toMatchObject({ y: { data: Float32Array.of(2, 2) } });
  });

  test(
    "a file cut short is refused, without its path to clients and with it in the cause",
    async () => {
      for (const part of [0, 0.1, 0.5, 0.9, 0.99]) {
        const whole = unrulyModel();
        const made = engine({ file: whole.subarray(0, Math.floor(whole.length * part)) });
        const error = (await made.load(LOAD()).catch((thrown: unknown) => thrown)) as EngineCrashedError;
        expect(error).toMatchObject({ type: "ENGINE_CRASHED", message: expect.not.stringContaining("/") });
        expect((error.cause as Error).message).toContain(specs.at(-1)?.dir);
        await eventually(() => expect(isAlive(made.pid ?? 0)).toBe(false));
      }
    },
    LONG,
  );

  test.each(["done", "started", "nonsense"])(
    "one that says %j unasked is killed, and this process lives on",
    async (type) => {
      const rogue = `data:text/javascript,process.send({ type: "${type}" }); process.send({ type: "${type}" });
        export default async () => new Promise(() => {});`;
      const spec = unrulySpec();
      specs.push(spec);
      const made = new EngineProcess(rogue, spec, { name: "rogue" });
      engines.push(made);
      await expect(made.load(AbortSignal.timeout(5_000))).rejects.toMatchObject({ type: "ENGINE_CRASHED" });
      await eventually(() => expect(isAlive(made.pid ?? 0)).toBe(false));
    },
  );

  test("a load that is given up leaves no process", async () => {
    const made = engine();
    await expect(made.load(AbortSignal.timeout(1))).rejects.toMatchObject({ type: "ENGINE_CRASHED" });
    await eventually(() => expect(isAlive(made.pid ?? 0)).toBe(false));
  });

  test("closing lets a run finish, refuses the next, and may be asked twice", async () => {
    const made = await loaded();
    const run = made.run(unrulyItem(4, { loops: 1e5 }), 1, NEVER);
    const closed = [made.close(), made.close()];
    await expect(made.run(unrulyItem(1), 1, NEVER)).rejects.toThrow();
    expect(await run).toMatchObject({ y: { data: Float32Array.of(8, 8) } });
    await Promise.all(closed);
    expect(made.state).toBe("dead");
    expect(isAlive(made.pid ?? 0)).toBe(false);
  });

  test("two runs at once are a fault of the caller", async () => {
    const made = await loaded();
    const run = made.run(unrulyItem(1, { loops: 1e5 }), 1, NEVER);
    await expect(made.run(unrulyItem(1), 1, NEVER)).rejects.toThrow(/to follow "running"/);
    await run;
  });

  test("its process knows none of the server's settings", async () => {
    process.env["REDIS_URL"] = "redis://:secret@127.0.0.1:1";
    const made = await loaded();
    delete process.env["REDIS_URL"];
    const environment = readFileSync(`/proc/${made.pid}/environ`, "utf8");
    expect(environment).toContain("PATH=");
    expect(environment).not.toContain("secret");
  });

  test("the system takes it before the server when memory runs out", async () => {
    const made = await loaded();
    const score = (pid: number | string) => Number(readFileSync(`/proc/${pid}/oom_score`, "utf8"));
    expect(score(made.pid ?? 0)).toBeGreaterThan(score("self"));
  });

  test("it ends when its parent is killed, even if it computes without end", async () => {
    const spec = unrulySpec();
    specs.push(spec);
    const parent = spawn(
      process.execPath,
      [
        "--disable-warning=ExperimentalWarning",
        "--input-type=module-typescript",
        "-e",
        `import { EngineProcess } from ${JSON.stringify(pathToFileURL("lib/engines/process.ts").href)};
         import { unrulyItem } from ${JSON.stringify(pathToFileURL("testkit/engines.ts").href)};
         const engine = new EngineProcess(${JSON.stringify(ONNX)}, ${JSON.stringify(spec)}, { name: "orphan" });
         await engine.load(AbortSignal.timeout(30_000));
         console.log(engine.pid);
         await engine.run(unrulyItem(1, { loops: ${ENDLESS} }), 1, { deadline: Infinity });`,
      ],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    const [line] = (await once(parent.stdout.setEncoding("utf8"), "data")) as [string];
    const pid = Number(line);
    expect(isAlive(pid)).toBe(true);
    parent.kill("SIGKILL");
    await eventually(() => expect(isAlive(pid)).toBe(false), 20_000);
  });
});
