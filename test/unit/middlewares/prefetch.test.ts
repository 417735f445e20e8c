import { isLoaded, prefetches } from "../../../middlewares/prefetch.ts";

describe("a node", () => {
  test.each([
    [{ memory: 0.95, wait: 0 }, false, true],
    [{ memory: 0, wait: 0.6 }, false, true],
    [{ memory: 0.85, wait: 0.4 }, false, false],
    [{ memory: 0.85, wait: 0 }, true, true],
    [{ memory: 0, wait: 0.4 }, true, true],
    [{ memory: 0.7, wait: 0.1 }, true, false],
  ])("with %j that pulled less (%s) pulls less: %s", (report, before, after) => {
    expect(isLoaded({ ...report, queued: 0, inFlight: 1 }, before)).toBe(after);
    expect(isLoaded({ ...report, queued: 1, inFlight: 0 }, before)).toBe(after);
  });

  test("without work does not pull less for want of cores, as each has while a cluster starts", () => {
    const idle = { memory: 0, wait: 1, queued: 0, inFlight: 0 };
    expect(isLoaded(idle, false)).toBe(false);
    expect(isLoaded({ ...idle, memory: 0.95 }, false)).toBe(true);
  });
});

describe("what a process takes at once, and when short of room", () => {
  const env = { SERVICES: ["resnet-cat"], PREFETCH: 0, MAX_BATCH_SIZE: 8, MAX_MODEL_IN_FLIGHT: 64 };

  test.each([
    ["a model: four batches, one", {}, 32, 8],
    ["a dispatcher: more than one model may have open", { SERVICES: ["dispatcher"] }, 128, 72],
    ["all services", { SERVICES: [] }, 128, 72],
    ["as it is told", { PREFETCH: 20 }, 20, 8],
    ["a dispatcher as it is told", { SERVICES: ["dispatcher"], PREFETCH: 20 }, 20, 20],
    ["what AMQP has room for", { SERVICES: [], MAX_MODEL_IN_FLIGHT: 1e6 }, 65_535, 65_535],
  ])("%s", (_, own, prefetch, least) => {
    expect(prefetches({ ...env, ...own })).toEqual({ prefetch, least });
  });
});
