import type { SettledItem } from "../../../../lib/batching/options.ts";
import { Cores } from "../../../../lib/engines/cores.ts";
import { Network, type NetworkOptions } from "../../../../lib/engines/network.ts";
import type { EngineProcess } from "../../../../lib/engines/process.ts";
import { createEngine, registerRuntime } from "../../../../lib/engines/runtimes.ts";
import type { Tensors } from "../../../../lib/engines/tensors.ts";
import { errorCode } from "../../../../lib/errors.ts";
import { unrulyItem, unrulySpec } from "../../../../testkit/engines.ts";
import { eventually } from "../../../../testkit/eventually.ts";
import { unrulyModel } from "../../../../testkit/onnx.ts";
import { SCRIPT } from "../../../fixtures/runtimes/scripted.ts";

registerRuntime("scripted", {
  module: new URL("../../../fixtures/runtimes/scripted.ts", import.meta.url).href,
});

const cleanUps: (() => unknown)[] = [];

/** A network on real processes; `engines`: all it ever had, in the order they were made. */
function network(options: Partial<NetworkOptions> = {}) {
  const engines: EngineProcess[] = [];
  const deaths: string[] = [];
  const made = new Network({
    id: { name: "m", version: 1, fingerprint: "" },
    spec: scriptedSpec(),
    create: (spec) => {
      const engine = createEngine(spec, { name: "m" }) as EngineProcess;
      engines.push(engine);
      return engine;
    },
    threads: 2,
    instances: 2,
    cores: new Cores(2),
    batching: { maxBatchSize: 4 },
    onDeath: (reason) => deaths.push(reason),
    ...options,
  });
  cleanUps.push(() => made.close());
  return { network: made, engines, deaths };
}

/** @param runMs of each run */
function scriptedSpec(runMs = 0): NetworkOptions["spec"] {
  return {
    runtime: "scripted",
    dir: "",
    files: ["0", String(runMs)],
    inputs: [{ name: "x", dtype: "uint8", shape: [1] }],
    outputs: [
      { name: "first", dtype: "float32", shape: [1] },
      { name: "threads", dtype: "float32", shape: [1] },
    ],
    maxBatch: 4,
  };
}

const scripted = (...bytes: number[]): Tensors[] =>
  bytes.map((byte) => ({ x: { dtype: "uint8", shape: [1, 1], data: Uint8Array.of(byte) } }));

function unruly(file?: Uint8Array): NetworkOptions["spec"] {
  const spec = unrulySpec(file);
  cleanUps.push(() => spec[Symbol.dispose]());
  return spec;
}

/** The first number of each item's first output, or the code of its error. */
const short = (items: readonly SettledItem<Tensors>[]) =>
  items.map((item) => (item.ok ? Number(Object.values(item.value)[0]?.data[0]) : errorCode(item.error)));

afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0)) await cleanUp();
});

describe("a network that does not fit its manifest is refused", () => {
  test.each([
    [
      "another input",
      unrulyModel({ input: "pixels" }),
      /Expected an input "x" float32\[n, 2\] but the model has "pixels"/,
    ],
    ["batches of one only", unrulyModel({ batch: 1 }), /computes 1 at once, no fewer and no more; .* 1 to 4/],
    ["weights that are no numbers", unrulyModel({ weight: Number.NaN }), /a batch of 1 .* "y" is not finite/],
  ])("%s", async (_, file, message) => {
    const { network: made, engines } = network({ spec: unruly(file) });
    await expect(made.load()).rejects.toMatchObject({
      type: "ENGINE_CRASHED",
      message: expect.stringMatching(message),
    });
    expect(engines.map(({ state }) => state)).toEqual(["dead", "dead"]);
  });

  test.each([
    [
      "another type",
      { inputs: [{ name: "x", dtype: "uint8", shape: [2] }] },
      /"x" uint8\[n, 2\] .* float32\[n, 2\]/,
    ],
    [
      "another length",
      { outputs: [{ name: "y", dtype: "float32", shape: [3] }] },
      /"y" float32\[n, 3\] .*\[n, 2\]/,
    ],
    [
      "no such output",
      { outputs: [{ name: "z", dtype: "float32", shape: [2] }] },
      /"z" .* the model has "y"/,
    ],
    [
      "an input it lacks",
      { inputs: [{ name: "x", dtype: "float32", shape: [2] }] },
      /wants an input "loops" int64/,
    ],
  ] as const)("%s", async (_, change, message) => {
    const spec = unruly();
    const others = "inputs" in change && _ !== "an input it lacks" ? spec.inputs.slice(1) : [];
    const inputs = "inputs" in change ? [...change.inputs, ...others] : spec.inputs;
    const { network: made } = network({ spec: { ...spec, ...change, inputs }, instances: 1 });
    await expect(made.load()).rejects.toMatchObject({ message: expect.stringMatching(message) });
  });

  test("a file cut short", async () => {
    const whole = unrulyModel();
    const spec = unruly(whole.subarray(0, whole.length / 2));
    const { network: made, deaths } = network({ spec });
    await expect(made.load()).rejects.toMatchObject({
      type: "ENGINE_CRASHED",
      message: "The engine of m died: its model cannot be loaded",
    });
    expect(deaths[0]).toContain(spec.dir);
  });
});

/** For tests that compute, where others compute, too: milliseconds. */
const LONG = 120_000;

describe("a network", () => {
  test("computes batches in the order of their items", async () => {
    const { network: made } = network({ spec: unruly() });
    await made.load();
    const items = [1, 2, 3, 4, 5, 6].map((value) => unrulyItem(value));
    expect(short(await made.submit(items, {}))).toEqual([2, 4, 6, 8, 10, 12]);
  });

  test("an item whose numbers are not finite fails alone", async () => {
    const { network: made } = network();
    await made.load();
    expect(short(await made.submit(scripted(1, SCRIPT.NAN, 3), {}))).toEqual([1, "PREDICTION_FAILED", 3]);
  });

  test.each(["SIGKILL", "SIGSEGV"] as const)(
    "%s of the engines costs what they compute one more try",
    async (signal) => {
      const { network: made, engines } = network({ spec: unruly() });
      await made.load();
      const items = Array.from({ length: 12 }, (_, i) => unrulyItem(i, { loops: 2e5 }));
      const answers = made.submit(items, {});
      await eventually(() => expect(engines.every(({ state }) => state === "running")).toBe(true));
      for (const { pid } of [...engines]) process.kill(pid ?? 0, signal);
      expect(short(await answers)).toEqual(items.map((_, i) => 2 * i));
      expect(engines.length).toBe(4);
    },
    LONG,
  );

  test(
    "an engine that hangs holds up only its own batch, and that is computed again",
    async () => {
      const { network: made, engines } = network({ spec: unruly() });
      await made.load();
      const [whole] = engines;
      process.kill(whole?.pid ?? 0, "SIGSTOP");
      const stuck = made.submit([unrulyItem(1)], {});
      for (let i = 0; i < 20; i++) expect(short(await made.submit([unrulyItem(i)], {}))).toEqual([2 * i]);
      expect(whole?.state).toBe("running");
      expect(short(await stuck)).toEqual([2]);
      expect(whole?.state).toBe("dead");
    },
    LONG,
  );

  test(
    "an item that kills engines is found out, alone or in company, and costs the others nothing",
    async () => {
      const { network: made, deaths } = network({ spec: scriptedSpec(50) });
      await made.load();
      const first = made.submit(scripted(9, 9, 9, 9), {});
      const mixed = made.submit(scripted(1, SCRIPT.ABORT, 3), {});
      expect(short(await mixed)).toEqual([1, "POISON_REQUEST", 3]);
      expect(short(await first)).toEqual([9, 9, 9, 9]);
      expect(short(await made.submit(scripted(SCRIPT.EXIT), {}))).toEqual(["POISON_REQUEST"]);
      expect(deaths).toHaveLength(5);
      expect(short(await made.submit(scripted(5), {}))).toEqual([5]);
    },
    LONG,
  );

  test(
    "refuses work at once while its engines die as they load, and takes it again",
    async () => {
      const { network: made, engines } = network({ spec: unruly(), instances: 1 });
      await made.load();
      const kill = () => process.kill(engines.at(-1)?.pid ?? 0, "SIGKILL");
      let killing = true;
      const killer = (async () => {
        while (killing) {
          const count = engines.length;
          kill();
          await eventually(() => !killing || engines.length > count, 20_000);
        }
      })();
      const waiting = made.submit([unrulyItem(1)], {});
      expect(short(await waiting)).toEqual(["MODEL_UNAVAILABLE"]);
      await expect(made.submit([unrulyItem(1)], {})).rejects.toMatchObject({ type: "MODEL_UNAVAILABLE" });
      killing = false;
      await killer;
      await eventually(() => expect(made.state).toBe("up"));
      expect(short(await made.submit([unrulyItem(2)], {}))).toEqual([4]);
    },
    LONG,
  );

  test(
    "closing answers what it has, and only then lets go of its engines",
    async () => {
      const { network: made, engines } = network({ spec: unruly(), instances: 1 });
      await made.load();
      const answers = made.submit(
        [1, 2, 3, 4, 5].map((value) => unrulyItem(value, { loops: 1e5 })),
        {},
      );
      const closed = made.close();
      await expect(made.submit([unrulyItem(1)], {})).rejects.toMatchObject({ type: "DRAINING" });
      expect(short(await answers)).toEqual([2, 4, 6, 8, 10]);
      await closed;
      expect(engines.map(({ state }) => state)).toEqual(["dead"]);
    },
    LONG,
  );
});
