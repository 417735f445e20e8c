import fc from "fast-check";
import type { SettledItem } from "../../../../lib/batching/options.ts";
import { Cores } from "../../../../lib/engines/cores.ts";
import { Network } from "../../../../lib/engines/network.ts";
import type { Tensors } from "../../../../lib/engines/tensors.ts";
import { EngineCrashedError, errorCode } from "../../../../lib/errors.ts";
import { FakeClock, settle } from "../../../../testkit/fake-clock.ts";
import { FakeDevice } from "../../../../testkit/fake-engine.ts";

/** How a run ends. */
type Ending = "well" | "refused" | "died" | "killed";

type Step =
  | { readonly do: "submit"; readonly network: number; readonly items: number; readonly deadlineIn?: number }
  | { readonly do: "end"; readonly ending: Ending }
  /** An engine dies, whatever it does. */
  | { readonly do: "die"; readonly engine: number }
  | { readonly do: "pass"; readonly ms: number };

interface Scenario {
  readonly places: number;
  readonly threads: number;
  readonly instances: number;
  readonly steps: readonly Step[];
}

const scenario: fc.Arbitrary<Scenario> = fc.record({
  places: fc.integer({ min: 1, max: 3 }),
  threads: fc.integer({ min: 1, max: 3 }),
  instances: fc.integer({ min: 1, max: 3 }),
  steps: fc.array(
    fc.oneof(
      {
        weight: 5,
        arbitrary: fc.record(
          {
            do: fc.constant("submit" as const),
            network: fc.nat(1),
            items: fc.integer({ min: 1, max: 5 }),
            deadlineIn: fc.nat(3_000),
          },
          { requiredKeys: ["do", "network", "items"] },
        ),
      },
      {
        weight: 6,
        arbitrary: fc.record({
          do: fc.constant("end" as const),
          ending: fc.oneof(
            { weight: 5, arbitrary: fc.constant<Ending>("well") },
            { weight: 2, arbitrary: fc.constantFrom<Ending>("refused", "died", "killed") },
          ),
        }),
      },
      { weight: 1, arbitrary: fc.record({ do: fc.constant("die" as const), engine: fc.nat(5) }) },
      { weight: 3, arbitrary: fc.record({ do: fc.constant("pass" as const), ms: fc.nat(2_000) }) },
    ),
    { maxLength: 60, size: "medium" },
  ),
});

const ITEM: Tensors = { x: { dtype: "float32", shape: [1, 1], data: Float32Array.of(1) } };
const CODES = new Set([
  "PREDICTION_FAILED",
  "POISON_REQUEST",
  "ENGINE_CRASHED",
  "DEADLINE_EXCEEDED",
  "MODEL_UNAVAILABLE",
]);

/** Two networks that share the cores of one process, through whatever happens to their engines. */
class World {
  readonly #clock = new FakeClock();
  readonly #device = new FakeDevice();
  readonly #cores: Cores;
  readonly #networks: readonly Network[];
  readonly #places: number;
  #submitted = 0;
  readonly #answers: SettledItem<Tensors>[] = [];
  #refused = 0;
  /** Runs before it have ended. */
  #next = 0;
  readonly broken = new Set<string>();

  constructor({ places, threads, instances }: Scenario) {
    this.#places = places;
    this.#cores = new Cores(places);
    this.#networks = ["a", "b"].map(
      (name) =>
        new Network({
          id: { name, version: 1, fingerprint: name },
          spec: {
            runtime: "fake",
            dir: name,
            files: [],
            inputs: [{ name: "x", dtype: "float32", shape: [1] }],
            outputs: [{ name: "y", dtype: "float32", shape: [1] }],
            maxBatch: 4,
          },
          create: this.#device.create,
          threads,
          instances,
          cores: this.#cores,
          clock: this.#clock,
          batching: { maxBatchSize: 4, maxQueueSize: 16 },
        }),
    );
  }

  async play(steps: readonly Step[]): Promise<void> {
    await Promise.all(this.#networks.map((network) => network.load()));
    for (const step of steps) {
      await this.#take(step);
      await settle();
      this.#check();
    }
    const closed = this.#networks.map((network) => network.close());
    // Whatever still computes ends well, and the engines' rests pass.
    for (let i = 0; i < 500; i++) {
      if (!this.#end("well") && !(await this.#clock.step())) break;
      await settle();
    }
    await Promise.all(closed);
    this.#claim("every item has its one answer", this.#answers.length + this.#refused === this.#submitted);
    this.#claim(
      "all engines are closed or dead",
      this.#device.engines.every(({ over }) => over),
    );
    this.#claim("every place is free again", this.#cores.take(() => {})?.alone === true);
    this.#claim("nothing is left to happen", this.#clock.pending === 0);
  }

  #claim(claim: string, holds: boolean): void {
    if (!holds) this.broken.add(claim);
  }

  async #take(step: Step): Promise<void> {
    if (step.do === "submit") this.#submit(step);
    if (step.do === "end") this.#end(step.ending);
    if (step.do === "die") this.#device.engines.at(-1 - step.engine)?.die();
    if (step.do === "pass") await this.#clock.advance(step.ms);
  }

  #submit({ network, items, deadlineIn }: Extract<Step, { do: "submit" }>): void {
    this.#submitted += items;
    const deadline = deadlineIn === undefined ? undefined : this.#clock.now() + deadlineIn;
    this.#networks[network]?.submit(new Array<Tensors>(items).fill(ITEM), { deadline }).then(
      (answers) => {
        this.#answers.push(...answers);
        for (const answer of answers) {
          const code = answer.ok ? "ok" : errorCode(answer.error);
          this.#claim(`an item ends well or with a reason, not ${code}`, answer.ok || CODES.has(code));
        }
      },
      (error) => {
        this.#refused += items;
        const code = errorCode(error);
        this.#claim(`a refusal says why, not ${code}`, ["QUEUE_FULL", "MODEL_UNAVAILABLE"].includes(code));
      },
    );
  }

  /** Ends the oldest run that goes on; false if there is none. */
  #end(ending: Ending): boolean {
    for (let run = this.#device.runs[this.#next]; run; run = this.#device.runs[++this.#next]) {
      if (!run.going) continue;
      if (ending === "well") run.finish();
      if (ending === "refused") run.fail(new Error("bad input"));
      if (ending === "died") run.engine.die();
      if (ending === "killed")
        run.engine.die("killed", new EngineCrashedError("fake", "killed", { killed: true }));
      return true;
    }
    return false;
  }

  #check(): void {
    const going = this.#device.runs.filter((run) => run.going);
    this.#claim("no more batches at once than places", going.length <= this.#places);
    this.#claim(
      "one batch at a time in an engine",
      new Set(going.map(({ engine }) => engine)).size === going.length,
    );
    this.#claim(
      "no batch in an engine that is dead",
      going.every(({ engine }) => !engine.over),
    );
    const busy = new Set(going.map(({ engine }) => engine));
    for (const { id, stats } of this.#networks) {
      const free = this.#device.engines.some(
        (engine) => engine.spec.dir === id.name && !engine.over && !busy.has(engine),
      );
      this.#claim(
        "nothing waits for an engine and a place that are free",
        stats.queued === 0 || !free || going.length === this.#places,
      );
    }
  }
}

test("whatever happens to the engines, nothing is lost, answered twice or left behind", async () => {
  await fc.assert(
    fc.asyncProperty(scenario, async (played) => {
      const world = new World(played);
      await world.play(played.steps);
      expect([...world.broken]).toEqual([]);
    }),
    { numRuns: 300 },
  );
});
