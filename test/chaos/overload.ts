import type { Member } from "./cluster.ts";
import { tightenGateway } from "./gateway.ts";
import { isRefusal, latency, summarise } from "./load.ts";
import type { Scene } from "./rig.ts";

const FACTOR = 10;
/** Requests a second that the load generator can send beside the cluster. */
const MAX_RATE = 1000;
const MIN_GOODPUT = 0.9;
const MAX_GROWTH_BYTES = 256 * 1024 * 1024;
const RECOVERY_SECONDS = 5;
/** Back to normal: the slowest is slower than it was before by no more than this, milliseconds. */
const NORMAL_MS = 500;
const MEMORY_SAMPLES_PER_SECOND = 2;

/**
 * Two nodes whose engine takes the same time for every item, so that the capacity is known and does not depend on the
 * CPU that the load generator takes away from the cluster; and a gateway that holds what they do in two seconds.
 */
export async function prepareOverload(scene: Scene): Promise<void> {
  const { cluster, load } = scene;
  await tightenGateway(scene);
  for (let i = 0; i < 2; i++) await cluster.start("steady");
  load.models = [...load.models, "steady"];
}

/** Measures the capacity, sends ten times as much, and then as little as before. */
export async function overload({ cluster, load, expect, note, pause, choose }: Scene): Promise<void> {
  const { models, rate } = load;
  const between = (from: number, to: number) =>
    load.samples.filter(({ sentAt }) => sentAt >= from && sentAt < to);

  load.models = ["steady"];
  const calmFrom = performance.now();
  await pause(3);
  const calm = summarise(between(calmFrom, performance.now()));
  await load.stop();
  const capacity = await load.closedLoop(48, choose(10, 5));

  const memory = new MemoryWatch(cluster.members());
  const duration = choose(30, 8);
  load.rate = Math.min(MAX_RATE, FACTOR * capacity);
  const begin = performance.now();
  load.start();
  for (let i = 0; i < duration * MEMORY_SAMPLES_PER_SECOND; i++) {
    await pause(1 / MEMORY_SAMPLES_PER_SECOND);
    await memory.sample();
  }
  const end = performance.now();

  load.rate = rate;
  await pause(RECOVERY_SECONDS);
  const calmAgainFrom = performance.now();
  await pause(3);
  const calmAgain = summarise(between(calmAgainFrom, performance.now()));
  // Those without an answer count, too.
  await load.stop();
  load.models = models;
  load.start();

  const flood = between(begin, end);
  const answered = flood.filter(({ error, sentAt, ms }) => error === undefined && sentAt + ms < end);
  const goodput = answered.length / ((end - begin) / 1000) / capacity;
  note(`capacity ${capacity.toFixed(1)}/s, sent ${(flood.length / ((end - begin) / 1000)).toFixed(0)}/s`);
  note(`goodput ${goodput.toFixed(2)} of it`);
  note(`refused in ${Math.round(latency(flood.filter(isRefusal), 0.99))} ms (p99)`);
  note(`memory +${Math.round(memory.growth / 1024 / 1024)} MiB`);
  note(`then ${Math.round(calmAgain.slowestMs)} ms, before ${Math.round(calm.slowestMs)} ms`);
  expect("pace", goodput >= MIN_GOODPUT, `goodput ${goodput.toFixed(2)} of the capacity`);
  const others = summarise(flood.filter((sample) => sample.error !== undefined && !isRefusal(sample))).errors;
  expect(
    "bounded",
    Object.keys(others).length === 0,
    `not answered and not refused: ${Object.keys(others).join(", ")}`,
  );
  expect("bounded", memory.growth <= MAX_GROWTH_BYTES, "memory grew");
  expect("answered", calmAgain.failed === 0, `${calmAgain.failed} failed when it was over`);
  expect(
    "pace",
    calmAgain.slowestMs <= calm.slowestMs + NORMAL_MS,
    `not back to normal after ${RECOVERY_SECONDS} s`,
  );
}

/** How much the memory of processes grows, of the one that grows most. */
class MemoryWatch {
  readonly #first = new Map<Member, number>();
  readonly #members: readonly Member[];
  /** Bytes. */
  growth = 0;

  constructor(members: readonly Member[]) {
    this.#members = members;
  }

  async sample(): Promise<void> {
    for (const member of this.#members) {
      const now = await member.memory();
      if (now === undefined) continue;
      const first = this.#first.get(member) ?? now;
      this.#first.set(member, first);
      this.growth = Math.max(this.growth, now - first);
    }
  }
}
