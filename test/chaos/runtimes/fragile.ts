import { appendFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import type { EngineSpec, Runtime } from "../../../lib/engines/engine.ts";
import loadOnnx from "../../../lib/engines/onnx.ts";
import { type Poison, poisonIn } from "../poison.ts";

/** Long enough for batches to form. */
const RUN_MS = 30;

/**
 * The real runtime, until it sees one of the suite's poisonous images: then it kills its thread or its whole process,
 * after it added a line to the file that `CHAOS_ATTEMPTS` names.
 */
export default async function load(spec: EngineSpec): Promise<Runtime> {
  const real = await loadOnnx(spec);
  const size = spec.itemShape.reduce((product, side) => product * side, 1);
  return {
    ...real,
    async run(pixels, count) {
      await delay(RUN_MS);
      for (let i = 0; i < count; i++) {
        const poison = poisonIn(pixels.subarray(i * size, (i + 1) * size));
        if (poison) die(poison);
      }
      return real.run(pixels, count);
    },
  };
}

function die(poison: Poison): void {
  const { CHAOS_ATTEMPTS } = process.env;
  if (CHAOS_ATTEMPTS) appendFileSync(CHAOS_ATTEMPTS, `${poison}\n`);
  if (poison === "process") process.kill(process.pid, "SIGKILL");
  // In a worker this ends the thread alone.
  process.exit(1);
}
