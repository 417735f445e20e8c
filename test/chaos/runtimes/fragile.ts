import { appendFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import type { EngineSpec, Runtime } from "../../../lib/engines/engine.ts";
import loadOnnx from "../../../lib/engines/onnx.ts";
import { itemAt } from "../../../lib/engines/tensors.ts";
import { type Poison, poisonIn } from "../poison.ts";

/** Long enough for batches to form. */
const RUN_MS = 30;

/**
 * The real runtime, until it sees one of the suite's poisonous images: then it kills its engine or the whole node,
 * after it added a line to the file that `CHAOS_ATTEMPTS` names.
 */
export default async function load(spec: EngineSpec): Promise<Runtime> {
  const real = await loadOnnx(spec);
  return {
    ...real,
    async run(batch, count) {
      await delay(RUN_MS);
      for (let i = 0; i < count; i++) {
        for (const { data } of Object.values(itemAt(batch, i))) {
          const poison = data instanceof Uint8Array ? poisonIn(data) : undefined;
          if (poison) die(poison);
        }
      }
      return real.run(batch, count);
    },
  };
}

function die(poison: Poison): void {
  const attempts = new URL(import.meta.url).searchParams.get("attempts");
  if (attempts) appendFileSync(attempts, `${poison}\n`);
  if (poison === "process") process.kill(process.ppid, "SIGKILL");
  process.abort();
}
