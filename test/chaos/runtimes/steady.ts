import { setTimeout as delay } from "node:timers/promises";
import type { EngineSpec, Runtime } from "../../../lib/engines/engine.ts";
import { zeros } from "../../../lib/engines/tensors.ts";

/** Milliseconds for one item, whatever the batch. */
const ITEM_MS = 40;

/**
 * A device of known pace: 25 items a second, without the CPU that the load generator beside it needs. So the capacity
 * that an overload must not reduce is the same before and during it.
 */
export default async function load({ inputs, outputs }: EngineSpec): Promise<Runtime> {
  return {
    signature: { inputs, outputs },
    async run(_, count) {
      await delay(ITEM_MS * count);
      return Object.fromEntries(
        outputs.map(({ name, dtype, shape }) => [name, zeros(dtype, [count, ...shape.map((n) => n ?? 1)])]),
      );
    },
    async close() {},
  };
}
