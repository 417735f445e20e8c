import { setTimeout as delay } from "node:timers/promises";
import type { Runtime } from "../../../lib/engines/engine.ts";

/** Milliseconds for one item, whatever the batch. */
const ITEM_MS = 40;
const CLASSES = 3;

/**
 * A device of known pace: 25 items a second, without the CPU that the load generator beside it needs. So the capacity
 * that an overload must not reduce is the same before and during it.
 */
export default async function load(): Promise<Runtime> {
  return {
    async run(_, count) {
      await delay(ITEM_MS * count);
      return new Float32Array(count * CLASSES);
    },
    async dispose() {},
  };
}
