import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Loggers, ServiceBroker } from "moleculer";
import type { Lease } from "../../lib/engines/leases.ts";
import { leaseNetwork, type NetworkSettings } from "../../lib/engines/node.ts";
import { registerRuntime } from "../../lib/engines/runtimes.ts";
import type { Tensors } from "../../lib/engines/tensors.ts";
import { healthOf, healthResponse } from "../../lib/telemetry/health.ts";
import { metricsText } from "../../lib/telemetry/prometheus.ts";
import { eventually } from "../../testkit/eventually.ts";
import { BROKEN, SCRIPT } from "../fixtures/runtimes/scripted.ts";

registerRuntime("scripted", { module: new URL("../fixtures/runtimes/scripted.ts", import.meta.url).href });

const SETTINGS: NetworkSettings = {
  id: { name: "pets", version: 2, fingerprint: "f" },
  spec: {
    runtime: "scripted",
    dir: "",
    files: ["0", "100"],
    inputs: [{ name: "x", dtype: "uint8", shape: [1] }],
    outputs: [{ name: "first", dtype: "float32", shape: [1] }],
    maxBatch: 4,
  },
  threads: 1,
  instances: 1,
  batching: { maxBatchSize: 4, maxQueueSize: 8 },
};

const item = (byte: number): Tensors => ({ x: { dtype: "uint8", shape: [1, 1], data: Uint8Array.of(byte) } });

const brokers: ServiceBroker[] = [];
const leases: Lease[] = [];

/** Keeps what is logged from `warn` on, as text. */
class Capture extends Loggers.Base<object> {
  readonly lines: string[] = [];

  override getLogHandler() {
    return (level: string, args: unknown[]) => {
      if (level === "warn" || level === "error") this.lines.push(JSON.stringify(args));
    };
  }
}

function setUp() {
  const logger = new Capture();
  const broker = new ServiceBroker({ nodeID: "node-1", logger, skipProcessEventRegistration: true });
  brokers.push(broker);
  return { broker, lines: logger.lines };
}

async function lease(broker: ServiceBroker, settings: Partial<NetworkSettings> = {}): Promise<Lease> {
  const made = await leaseNetwork(broker, { ...SETTINGS, ...settings });
  leases.push(made);
  return made;
}

afterEach(async () => {
  await Promise.all(leases.splice(0).map((each) => each.release()));
  await Promise.all(brokers.splice(0).map((broker) => broker.stop()));
});

const LABELS = 'network="pets",version="2"';

describe("a network of a node", () => {
  test("is shared by those who ask for the same, and not by another node", async () => {
    const [one, two] = [setUp(), setUp()];
    const [a, b, other, elsewhere] = [
      await lease(one.broker),
      await lease(one.broker),
      await lease(one.broker, { batching: { maxBatchSize: 2 } }),
      await lease(two.broker),
    ];
    expect(a.network).toBe(b.network);
    expect(new Set([a, other, elsewhere].map(({ network }) => network)).size).toBe(3);
  });

  test("shows its queue while the engine hangs, and nothing once it is closed", async () => {
    const { broker } = setUp();
    const own = await lease(broker);
    const answers = [1, 2, 3].map((byte) => own.submit([item(byte)]));
    const text = await metricsText(broker);
    expect(text).toContain(`inference_queued{${LABELS}} 2`);
    expect(text).toContain(`inference_running{${LABELS}} 1`);
    await Promise.all(answers);
    expect(await metricsText(broker)).toContain(`inference_queued{${LABELS}} 0`);
    await own.release();
    expect(await metricsText(broker)).not.toContain("inference_queued{");
  });

  test("counts its batches by how they ended and logs the first failure of a kind", async () => {
    const { broker, lines } = setUp();
    const own = await lease(broker);
    await own.submit([item(1)]);
    for (let i = 0; i < 3; i++) {
      expect(await own.submit([item(SCRIPT.THROW)])).toMatchObject([
        { ok: false, error: { type: "PREDICTION_FAILED", message: expect.not.stringContaining("/srv") } },
      ]);
    }
    const text = await metricsText(broker);
    const counted = (outcome: string) =>
      `inference_batches_total{${LABELS},reason="idle",outcome="${outcome}"}`;
    expect(text).toContain(`${counted("ok")} 1`);
    expect(text).toContain(`${counted("PREDICTION_FAILED")} 3`);
    expect(lines.filter((line) => line.includes("Batch failed"))).toHaveLength(1);
  });

  test("counts and logs the deaths of its engines, with their reason", async () => {
    const { broker, lines } = setUp();
    const own = await lease(broker);
    expect(await own.submit([item(SCRIPT.ABORT)])).toMatchObject([{ error: { type: "POISON_REQUEST" } }]);
    expect(await metricsText(broker)).toContain(`engine_deaths_total{${LABELS}} 2`);
    expect(lines.filter((line) => line.includes("Engine died"))[0]).toContain("SIGABRT");
  });

  test("takes the node's readiness along when its engines die one after the other, and gives it back", async () => {
    const { broker } = setUp();
    healthOf(broker).ready();
    const own = await lease(broker);
    const missing = () => healthResponse(broker, "ready").body.missing;
    expect(missing()).toEqual([]);
    const states: string[] = [];
    // Each of these kills two engines, and none is computed in between.
    for (let i = 0; i < 2; i++) {
      await own.submit([item(SCRIPT.EXIT)]).catch(() => {});
      states.push(missing().join());
    }
    expect(states.at(-1)).toBe("engines of pets/2");
    expect(healthResponse(broker, "live").status).toBe(200);
    await eventually(() => expect(missing()).toEqual([]));
  });

  test("ends the node's life when no engine can be started any more, and gives it back if one can", async () => {
    const folder = mkdtempSync(join(tmpdir(), "model-"));
    try {
      const { broker } = setUp();
      healthOf(broker).ready();
      const own = await lease(broker, { spec: { ...SETTINGS.spec, dir: folder } });
      writeFileSync(join(folder, BROKEN), "");
      await own.submit([item(SCRIPT.EXIT)]).catch(() => {});
      const live = () => healthResponse(broker, "live");
      // Ten deaths, with rests of eleven seconds in between.
      await eventually(() => live().status === 503, 90_000);
      expect(live().body.missing).toEqual(["engines of pets/2"]);
      await expect(own.submit([item(1)])).rejects.toMatchObject({ type: "MODEL_UNAVAILABLE" });
      rmSync(join(folder, BROKEN));
      await eventually(() => live().status === 200, 30_000);
      expect(await own.submit([item(1)])).toMatchObject([{ ok: true }]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  }, 150_000);
});
