import { tightenGateway } from "./gateway.ts";
import { isRefusal, Load, latency, type Sample, summarise } from "./load.ts";
import type { Scene } from "./rig.ts";

/** Requests a second: five times what one node of the flooded model can do, and little work for the cores all share. */
const FLOOD_RATE = 125;
const MAX_SLOWDOWN = 1.5;

/** Two models, each with a node of its own and the same known pace. */
export async function prepareFlood(scene: Scene): Promise<void> {
  const { cluster, load } = scene;
  await tightenGateway(scene);
  for (const model of ["steady", "flooded"]) await cluster.start(model);
  load.models = [...load.models, "steady", "flooded"];
}

/**
 * Floods the one model and looks at the other, which is compared with itself before. The best of some rounds counts,
 * for both: what else goes on in the machine only ever slows it down.
 */
export async function flood({ load, expect, note, pause, choose }: Scene): Promise<void> {
  const { models } = load;
  load.models = ["steady"];
  await pause(1);
  const rounds: Round[] = [];
  for (let i = 0; i < choose(5, 3); i++) rounds.push(await round({ load, pause, choose }));
  load.models = models;

  const flooded = rounds.flatMap(({ flood }) => flood);
  const before = Math.min(...rounds.map((each) => latency(each.before, 0.5)));
  const after = Math.min(...rounds.map((each) => latency(each.after, 0.5)));
  note(`other model p50 ${after.toFixed(0)} ms, before ${before.toFixed(0)} ms`);
  note(`${flooded.filter(isRefusal).length} of the flood's ${flooded.length} refused`);
  expect("fair", after <= MAX_SLOWDOWN * before, `${(after / before).toFixed(2)} times as slow`);
  const others = summarise(rounds.flatMap(({ after }) => after));
  expect("answered", others.failed === 0, `${others.failed} of the other model's failed`);
  const lost = summarise(flooded.filter((sample) => sample.error !== undefined && !isRefusal(sample)));
  expect(
    "bounded",
    lost.requests === 0,
    `not answered and not refused: ${Object.keys(lost.errors).join(", ")}`,
  );
}

interface Round {
  /** Requests to the other model before the flood, and during it. */
  readonly before: readonly Sample[];
  readonly after: readonly Sample[];
  readonly flood: readonly Sample[];
}

async function round({ load, pause, choose }: Pick<Scene, "load" | "pause" | "choose">): Promise<Round> {
  const during = async (seconds: number) => {
    const from = performance.now();
    await pause(seconds);
    return load.samples.filter(({ sentAt, ms }) => sentAt >= from && sentAt + ms < performance.now());
  };
  const before = await during(4);
  const flood = new Load(load.target, FLOOD_RATE);
  flood.models = ["flooded"];
  flood.start();
  await pause(1);
  const after = await during(choose(8, 4));
  await flood.stop();
  return { before, after, flood: flood.samples };
}
