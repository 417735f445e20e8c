import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { poisoned } from "./images.ts";
import { summarise } from "./load.ts";
import type { Poison } from "./poison.ts";
import type { ChaosEvent, Scene } from "./rig.ts";

/**
 * Attempts that a request which kills gets, over all nodes: where it was sent, where it was taken over, in a group of
 * suspects, alone.
 */
const MAX_ATTEMPTS = 4;

const MANY = 10;
const MANY_SECONDS = 5;

/** Images that kill what computes them, among others that must not suffer. */
export const poisonEvents: readonly ChaosEvent[] = [
  {
    name: "poison",
    about: "images that kill the engine, or the process",
    protectedBy: { mechanism: "quarantine", bar: "convicted" },
    prepare: startFragile,
    async act(scene) {
      await convict("engine", scene);
      await convict("process", scene);
    },
  },
  {
    name: "many-poisons",
    about: `${MANY} images that kill the process, in ${MANY_SECONDS} s`,
    protectedBy: { mechanism: "quarantine", bar: "convicted" },
    prepare: startFragile,
    async act({ load, expect, note, pause }) {
      const image = await poisoned("process");
      const deadly = Array.from({ length: MANY }, async (_, i) => {
        await pause((i * MANY_SECONDS) / MANY);
        return load.probe(image, ["fragile"]);
      });
      const { errors } = summarise(await Promise.all(deadly));
      note(`poisons: ${JSON.stringify(errors)}`);
      expect(
        "convicted",
        errors["500 POISON_REQUEST"] === MANY,
        `${JSON.stringify(errors)} for ${MANY} poisons`,
      );
    },
  },
];

/** A process that died and does not come back under its name is believed dead after 15 s; and suspects take turns. */
const LONGER_THAN_A_VERDICT_MS = 40_000;

async function startFragile({ cluster, load, folder }: Scene): Promise<void> {
  load.deadlineMs = LONGER_THAN_A_VERDICT_MS;
  const env = { CHAOS_ATTEMPTS: join(folder, "attempts") };
  for (let i = 0; i < 3; i++) await cluster.start("fragile", { env, restarts: true });
  load.models = [...load.models, "fragile"];
}

async function convict(kind: Poison, { load, folder, expect, note, pause, choose }: Scene): Promise<void> {
  const image = await poisoned(kind);
  // In the midst of others, so that it shares a batch with them.
  const before = load.burst();
  const deadly = load.probe(image, ["fragile"]);
  await Promise.all([before, load.burst()]);
  const { status, error } = await deadly;
  const attempts = (await readFile(join(folder, "attempts"), "utf8").catch(() => ""))
    .split("\n")
    .filter((attempt) => attempt === kind).length;
  note(`${kind}: ${status} ${error} after ${attempts} attempts`);
  expect("convicted", error === "POISON_REQUEST", `the ${kind} killer got ${status} ${error}`);
  expect(
    "convicted",
    attempts >= 1 && attempts <= MAX_ATTEMPTS,
    `${attempts} attempts for the ${kind} killer`,
  );
  await pause(choose(5, 2));
}
