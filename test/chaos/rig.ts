import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { eventually } from "../../testkit/eventually.ts";
import { type Rabbit, startRabbit, startRabbitCluster } from "../../testkit/rabbitmq.ts";
import { startRedis, type TestRedis } from "../../testkit/redis.ts";
import { stealMeter } from "../../testkit/steal.ts";
import { Cluster } from "./cluster.ts";
import { Load, type Sample, summarise } from "./load.ts";
import type { MechanismName } from "./mechanisms.ts";
import type { Bar, Miss, Outcome } from "./report.ts";

/** Processes at the beginning of every event. */
const ROSTER = { gateway: 1, dispatcher: 2, "resnet-cat": 2, "resnet-dog": 1 };

/** Requests a second, unless an event says otherwise. */
const RATE = 12;

/** Time for every process to get a request after an event: reconnecting, and the end of what the strategy holds against it. */
const RECOVERY_MS = 30_000;

/** Share of the time from which on it is said that other machines had it. */
const NOTABLE_STEAL = 0.02;

/** An event that needs what this machine does not have. */
export class Skipped extends Error {}

/** What an event acts on. */
export interface Scene {
  readonly cluster: Cluster;
  readonly load: Load;
  /** The only one, or the first of them. */
  readonly rabbit: Rabbit;
  readonly rabbits: readonly Rabbit[];
  readonly redis: TestRedis;
  /** A folder of the event's own. */
  readonly folder: string;
  /** Of two values the one that fits this run. */
  choose(full: number, short: number): number;
  pause(seconds: number): Promise<void>;
  /** If it is not met, the bar is missed, and `otherwise` says by what. */
  expect(bar: Bar, met: boolean, otherwise: string): void;
  /** A figure for the report. */
  note(text: string): void;
  /** Runs when the event is over. */
  defer(undo: () => unknown): void;
}

/** One thing that goes wrong while requests come in. */
export interface ChaosEvent {
  readonly name: string;
  readonly about: string;
  /** Without this mechanism just this bar must be missed. Absent: it is the client, or RabbitMQ itself, that protects. */
  readonly protectedBy?: { readonly mechanism: MechanismName; readonly bar: Bar };
  /** How much longer than normal the slowest request may take, milliseconds; absent: as long as its deadline. */
  readonly slowerByMs?: number;
  /** Of RabbitMQ (1). */
  readonly members?: number;
  /** Whether only `expect` judges: the event's own requests are meant to fail. */
  readonly judgesItself?: true;
  /** Before the normal load is measured. */
  readonly prepare?: (scene: Scene) => Promise<void>;
  readonly act: (scene: Scene) => Promise<void>;
}

export interface RigOptions {
  readonly short: boolean;
  /** Of RabbitMQ. */
  readonly members: number;
  readonly without?: MechanismName;
  /** Where processes write their logs. */
  readonly logs: string;
}

/** Those that had their answer when the event began, and those that it could harm. */
function divide(samples: readonly Sample[], begin: number): [Sample[], Sample[]] {
  const isBefore = ({ sentAt, ms }: Sample) => sentAt + ms < begin;
  return [samples.filter(isBefore), samples.filter((sample) => !isBefore(sample))];
}

/** A machine without RabbitMQ takes it from Docker, but no cluster of it. */
async function startRabbits(members: number): Promise<readonly [Rabbit, ...Rabbit[]]> {
  return members === 1
    ? [await startRabbit()]
    : ((await startRabbitCluster(members)) as [Rabbit, ...Rabbit[]]);
}

/** RabbitMQ, Redis and a cluster of its own, on which events are run one after the other. */
export class Rig {
  readonly #options: RigOptions;
  readonly #rabbits: readonly [Rabbit, ...Rabbit[]];
  readonly #redis: TestRedis;
  readonly #cluster: Cluster;

  static async start(options: RigOptions): Promise<Rig> {
    const [rabbits, redis] = await Promise.all([startRabbits(options.members), startRedis()]);
    return new Rig(options, rabbits, redis);
  }

  private constructor(options: RigOptions, rabbits: readonly [Rabbit, ...Rabbit[]], redis: TestRedis) {
    this.#options = options;
    this.#rabbits = rabbits;
    this.#redis = redis;
    this.#cluster = new Cluster({
      logs: options.logs,
      ...(options.without ? { without: options.without } : {}),
      rabbits: rabbits.map(({ url }) => url),
      env: {
        REDIS_URL: redis.url,
        NAMESPACE: "chaos",
        SERVICES_DIRS: "services,test/chaos/services",
        ENGINE_THREADS: "1",
        DECODE_CONCURRENCY: "1",
        DRAIN_GRACE_MS: "15000",
      },
    });
  }

  async run(event: ChaosEvent): Promise<Outcome> {
    const folder = await mkdtemp(join(tmpdir(), "chaos-"));
    const undo: (() => unknown)[] = [() => rm(folder, { recursive: true })];
    const missed: Miss[] = [];
    const notes: string[] = [];
    const common = { event: event.name, about: event.about, missed, notes };
    const steal = stealMeter();
    let load: Load | undefined;
    try {
      await this.#cluster.resize(ROSTER);
      load = new Load(this.#cluster.oldest("gateway").url, RATE);
      load.failsOver = this.#options.without !== "failover";
      const scene = this.#scene(load, folder, { missed, notes, undo });
      await event.prepare?.(scene);

      const settling = await this.#settle(load);
      await load.learn();
      const from = performance.now();
      await scene.pause(scene.choose(4, 2));
      await load.burst();
      await scene.pause(1);
      const begin = performance.now();
      await event.act(scene);
      const idlers = await this.#idlers(load);
      await load.stop();

      scene.expect("alive", idlers.length === 0, `zombies: ${idlers.join(", ")}`);
      const [before, harmed] = divide(load.samples, begin);
      const normal = summarise(before.filter(({ sentAt }) => sentAt >= from));
      const during = summarise(harmed);
      const early = before.filter(({ sentAt, error }) => sentAt >= settling && error !== undefined).length;
      scene.expect("answered", early === 0, `${early} failed before the event`);
      if (!event.judgesItself) {
        scene.expect("answered", during.failed === during.wrong, `${during.failed - during.wrong} failed`);
        const limit = normal.slowestMs + (event.slowerByMs ?? Number.POSITIVE_INFINITY);
        scene.expect(
          "fast",
          during.slowestMs <= limit,
          `slowest ${Math.round(during.slowestMs)} ms > ${Math.round(limit)}`,
        );
      }
      const wrong = normal.wrong + during.wrong;
      scene.expect("right", wrong === 0, `${wrong} answers to other photos`);
      const stolen = steal();
      if (stolen > NOTABLE_STEAL) notes.push(`other machines took ${Math.round(100 * stolen)} % of the time`);
      return { ...common, ...during, normalMs: normal.slowestMs };
    } catch (error) {
      if (error instanceof Skipped) return { ...common, ...summarise([]), skipped: error.message };
      missed.push({ bar: "run", why: (error as Error).message });
      return { ...common, ...summarise(load?.samples ?? []) };
    } finally {
      await load?.stop();
      for (const each of undo.reverse()) await each();
    }
  }

  async stop(): Promise<void> {
    await this.#cluster.stop();
    await Promise.all([...this.#rabbits, this.#redis].map((each) => each.remove()));
  }

  /**
   * Resolves when every process serves: connected, known to the others, and warm.
   * @returns when a first one did: what is sent from then on must be answered
   */
  async #settle(load: Load): Promise<number> {
    await eventually(async () => (await load.send()).error === undefined, RECOVERY_MS);
    const settling = performance.now();
    load.start();
    const idlers = await this.#idlers(load);
    if (idlers.length > 0) throw new Error(`${idlers.join(", ")} got no request before the event`);
    return settling;
  }

  #idlers(load: Load): Promise<string[]> {
    return this.#cluster.idlers(RECOVERY_MS, () => load.burst());
  }

  #scene(
    load: Load,
    folder: string,
    { missed, notes, undo }: { missed: Miss[]; notes: string[]; undo: (() => unknown)[] },
  ): Scene {
    return {
      cluster: this.#cluster,
      rabbit: this.#rabbits[0],
      rabbits: this.#rabbits,
      redis: this.#redis,
      load,
      folder,
      choose: (full, short) => (this.#options.short ? short : full),
      pause: (seconds) => delay(seconds * 1000),
      expect(bar, met, otherwise) {
        if (!met) missed.push({ bar, why: otherwise });
      },
      note: (text) => notes.push(text),
      defer: (each) => undo.push(each),
    };
  }
}
