import { Cores } from "../../../../lib/engines/cores.ts";
import { Leases } from "../../../../lib/engines/leases.ts";
import { Network } from "../../../../lib/engines/network.ts";
import { settle } from "../../../../testkit/fake-clock.ts";
import { FakeDevice } from "../../../../testkit/fake-engine.ts";

const ITEM = { x: { dtype: "float32", shape: [1, 1], data: Float32Array.of(1) } } as const;

function setUp() {
  const device = new FakeDevice();
  const make = () =>
    new Network({
      id: { name: "m", version: 1, fingerprint: "f" },
      spec: {
        runtime: "fake",
        dir: "",
        files: [],
        inputs: [{ name: "x", dtype: "float32", shape: [1] }],
        outputs: [{ name: "y", dtype: "float32", shape: [1] }],
        maxBatch: 4,
      },
      create: device.create,
      threads: 1,
      instances: 1,
      cores: new Cores(1),
      batching: {},
    });
  return { device, leases: new Leases(), make };
}

describe("Leases", () => {
  test("who asks for the same gets the same, loaded once", async () => {
    const { device, leases, make } = setUp();
    const [a, b] = await Promise.all([leases.lease("k", make), leases.lease("k", make)]);
    const c = await leases.lease("k", make);
    expect(new Set([a.network, b.network, c.network]).size).toBe(1);
    expect(device.engines).toHaveLength(1);
  });

  test("items of two holders share a batch", async () => {
    const { device, leases, make } = setUp();
    const [a, b] = await Promise.all([leases.lease("k", make), leases.lease("k", make)]);
    void a.submit([ITEM]);
    const answers = [a.submit([ITEM]), b.submit([ITEM])];
    device.runs[0]?.finish();
    await settle();
    expect(device.runs.map(({ count }) => count)).toEqual([1, 2]);
    device.runs[1]?.finish();
    expect((await Promise.all(answers)).flat().map(({ ok }) => ok)).toEqual([true, true]);
  });

  test("who asks for something else gets another", async () => {
    const { device, leases, make } = setUp();
    await Promise.all([leases.lease("k", make), leases.lease("l", make)]);
    expect(device.engines).toHaveLength(2);
  });

  test("the last one closes it; the next who asks has it loaded anew", async () => {
    const { device, leases, make } = setUp();
    const [a, b] = await Promise.all([leases.lease("k", make), leases.lease("k", make)]);
    await a.release();
    expect(device.engines[0]?.closed).toBe(false);
    await a.release();
    expect(device.engines[0]?.closed).toBe(false);
    await b.release();
    expect(device.engines[0]?.closed).toBe(true);
    await leases.lease("k", make);
    expect(device.engines).toHaveLength(2);
  });

  test("a release refuses that holder's new work and waits for what it has submitted", async () => {
    const { device, leases, make } = setUp();
    const [a, b] = await Promise.all([leases.lease("k", make), leases.lease("k", make)]);
    const answer = a.submit([ITEM]);
    let released = false;
    const release = a.release().then(() => {
      released = true;
    });
    await expect(a.submit([ITEM])).rejects.toMatchObject({ type: "DRAINING" });
    await settle();
    expect(released).toBe(false);
    device.runs[0]?.finish();
    expect(await answer).toMatchObject([{ ok: true }]);
    await release;
    const other = b.submit([ITEM]);
    await settle();
    device.runs[1]?.finish();
    expect(await other).toMatchObject([{ ok: true }]);
  });

  test("a load that fails, fails for all who asked, and the next tries again", async () => {
    const { device, leases, make } = setUp();
    device.loadsAtOnce = false;
    const both = [leases.lease("k", make), leases.lease("k", make)];
    const failed = Promise.all(
      both.map((lease) => expect(lease).rejects.toMatchObject({ type: "ENGINE_CRASHED" })),
    );
    device.engines[0]?.die("no memory");
    await failed;
    device.loadsAtOnce = true;
    await leases.lease("k", make);
    expect(device.engines).toHaveLength(2);
  });
});
