import { pbkdf2Sync } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { drain } from "../middlewares/health.ts";
import { createBroker, type NodeSettings } from "./balance-cluster.ts";

/**
 * A model node whose engine is a timer: one prediction after the other, each of a fixed time, without using the CPU.
 * So three of them and their caller fit on two cores without slowing each other down, and a node "slowed four times"
 * is exactly that. `rounds` adds real work for tests that are about the CPU.
 */
const settings = JSON.parse(process.argv[2] ?? "") as NodeSettings;
const { nodeID, serviceMs = 0, rounds = 0 } = settings;
let free = 0;

const broker = createBroker(settings);
broker.createService({
  name: "model",
  actions: {
    async predict(): Promise<{ node: string }> {
      if (rounds > 0) pbkdf2Sync("photo", "salt", rounds, 32, "sha256");
      const now = performance.now();
      free = Math.max(now, free) + serviceMs;
      if (serviceMs > 0) await delay(free - now);
      return { node: nodeID };
    },
  },
});
process.once("message", () => drain(broker));
// However the bench ends.
process.once("disconnect", () => process.exit());
await broker.start();
process.send?.("ready");
