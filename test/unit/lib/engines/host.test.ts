import { EngineHost, type EngineHostOptions } from "../../../../lib/engines/host.ts";
import { SCRIPT } from "../../../fixtures/runtimes/scripted.ts";

const spec = {
  runtime: new URL("../../../fixtures/runtimes/scripted.ts", import.meta.url).href,
  file: "",
  inputTensor: "",
  outputTensor: "",
  itemShape: [2],
  threads: 1,
};

const hosts: EngineHost[] = [];

function host(options: Partial<EngineHostOptions> = {}): EngineHost {
  const made = new EngineHost({ name: "m", spec, ...options });
  hosts.push(made);
  return made;
}

/** Items of two bytes whose first is given. */
const items = (...first: number[]) => Uint8Array.from(first.flatMap((byte) => [byte, 0]));

afterEach(async () => {
  await Promise.all(hosts.splice(0).map((made) => made.dispose()));
});

describe("EngineHost", () => {
  test("answers a batch in order", async () => {
    const engine = host();
    await engine.load();
    expect([...(await engine.run(items(1, 2, 3), 3))]).toEqual([1, 2, 3]);
  });

  test("a run that throws fails alone and the worker lives on", async () => {
    const restarts: string[] = [];
    const engine = host({ onRestart: (reason) => restarts.push(reason) });
    await engine.load();
    await expect(engine.run(items(SCRIPT.THROW), 1)).rejects.toMatchObject({
      type: "PREDICTION_FAILED",
      message: expect.stringContaining("scripted failure"),
    });
    expect([...(await engine.run(items(7), 1))]).toEqual([7]);
    expect(restarts).toEqual([]);
  });

  test.each([
    ["exits", SCRIPT.EXIT, /exited with code 3/],
    ["throws outside of a run", SCRIPT.CRASH, /scripted crash/],
  ])("a worker that %s fails its batch with a retryable error and is replaced", async (_, byte, message) => {
    const restarts: string[] = [];
    const engine = host({ onRestart: (reason) => restarts.push(reason) });
    await engine.load();
    await expect(engine.run(items(byte), 1)).rejects.toMatchObject({
      type: "ENGINE_CRASHED",
      retryable: true,
      message: expect.stringMatching(message),
    });
    expect([...(await engine.run(items(9), 1))]).toEqual([9]);
    expect(restarts).toHaveLength(1);
  });

  test("a run that never ends is a crash after its time", async () => {
    const engine = host({ runTimeoutMs: 100 });
    await engine.load();
    await expect(engine.run(items(SCRIPT.HANG), 1)).rejects.toMatchObject({ type: "ENGINE_CRASHED" });
    expect([...(await engine.run(items(5), 1))]).toEqual([5]);
  });

  test("a worker that dies again and again is replaced every time", async () => {
    const engine = host();
    await engine.load();
    for (let i = 0; i < 3; i++) {
      await expect(engine.run(items(SCRIPT.EXIT), 1)).rejects.toMatchObject({ type: "ENGINE_CRASHED" });
    }
    expect([...(await engine.run(items(4), 1))]).toEqual([4]);
  });

  test("a model that cannot be loaded fails the load and is not tried again", async () => {
    const restarts: string[] = [];
    const engine = host({
      spec: { ...spec, runtime: "file:///does/not/exist.ts" },
      onRestart: (reason) => restarts.push(reason),
    });
    await expect(engine.load()).rejects.toMatchObject({ type: "ENGINE_CRASHED" });
    expect(restarts).toEqual([]);
  });

  test("disposing fails what runs and refuses what comes", async () => {
    const engine = host();
    await engine.load();
    const running = engine.run(items(SCRIPT.HANG), 1);
    const failed = expect(running).rejects.toMatchObject({ type: "ENGINE_CRASHED" });
    await engine.dispose();
    await failed;
    await expect(engine.run(items(1), 1)).rejects.toMatchObject({ type: "ENGINE_CRASHED" });
  });
});
