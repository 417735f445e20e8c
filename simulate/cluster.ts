import { Batcher } from "../lib/batching/batcher.ts";
import { FixedSlots } from "../lib/batching/slots.ts";
import { LoadTable } from "../lib/load/table.ts";
import { choose } from "../strategies/load-aware.ts";
import { SCORE_DEFAULTS } from "../strategies/score.ts";
import type { Random } from "../testkit/random.ts";
import type { VirtualClock } from "../testkit/virtual-clock.ts";

/** One model, as its pods compute it. */
export interface ModelOptions {
  /** Cores of a pod; as many batches are computed at once, each on one of them. */
  readonly cores: number;
  /** A batch of n takes `baseMs + n · itemMs` on one core. */
  readonly baseMs: number;
  readonly itemMs: number;
  /** Standard deviation of that time's logarithm: other work on the same machine. */
  readonly spread: number;
  readonly maxBatchSize: number;
  readonly maxQueueSize: number;
  /** Time a request has, milliseconds. */
  readonly deadlineMs: number;
}

/** How long a pod takes to be of use. Seconds. */
export interface ColdStart {
  /** A node that joins because no other had room. */
  readonly nodeSeconds: number;
  /** The image on a node that has not had it. */
  readonly pullSeconds: number;
  /** Process, model and warm-up, until the readiness probe is believed. */
  readonly startSeconds: number;
  /** Pods that have room on a node. */
  readonly podsPerNode: number;
}

/** How requests ended. */
export type Ending = "answered" | "refused" | "late";

interface Pod {
  readonly id: string;
  readonly node: Node;
  readonly batcher: Batcher<null, null>;
  state: "starting" | "ready" | "draining";
  /** Milliseconds of cores used since it was last looked at. */
  busyMs: number;
  /** Share of its cores used in the last window. */
  cpu: number;
}

interface Node {
  pods: number;
  readyAt: number;
  hasImage: boolean;
}

const HEARTBEAT_MS = 2000;

/** Pods of one Deployment on nodes that come and go, and a caller that spreads requests over them as ours do. */
export class Cluster {
  readonly #clock: VirtualClock;
  readonly #random: Random;
  readonly #model: ModelOptions;
  readonly #cold: ColdStart;
  readonly #table: LoadTable;
  readonly #pods: Pod[] = [];
  readonly #nodes: Node[] = [];
  readonly #onEnd: (ending: Ending, ms: number) => void;
  #ready: Pod[] = [];
  #names = 0;
  #desired = 0;

  constructor(
    clock: VirtualClock,
    random: Random,
    model: ModelOptions,
    cold: ColdStart,
    onEnd: (ending: Ending, ms: number) => void,
  ) {
    this.#clock = clock;
    this.#random = random;
    this.#model = model;
    this.#cold = cold;
    this.#onEnd = onEnd;
    this.#table = new LoadTable(() => clock.now());
    this.#beat();
  }

  /** Replicas that the Deployment shall have. */
  get desired(): number {
    return this.#desired;
  }

  /** Pods that take requests. */
  get ready(): number {
    return this.#ready.length;
  }

  /** Pods that are paid for: all but those that wait for their node. */
  get running(): number {
    return this.#pods.filter(({ node }) => node.readyAt <= this.#clock.now()).length;
  }

  /** Whether a pod is on its way up or down. */
  get changing(): boolean {
    return this.#pods.some(({ state }) => state !== "ready");
  }

  /** Items that wait for their batch, over all pods. */
  get queued(): number {
    return this.#ready.reduce((sum, { batcher }) => sum + batcher.stats.queued, 0);
  }

  /** Pods are started, or the newest are drained, until there are so many. `warm`: they are ready at once. */
  scale(replicas: number, warm = false): void {
    this.#desired = replicas;
    const up = () => this.#pods.filter(({ state }) => state !== "draining");
    while (up().length < replicas) this.#start(warm);
    for (const pod of up()
      .toReversed()
      .slice(0, Math.max(0, up().length - replicas)))
      this.#drain(pod);
  }

  /** Share of their cores that the ready pods used in the last `ms` milliseconds, and forgets it. */
  takeCpu(ms: number): number {
    for (const pod of this.#pods) {
      pod.cpu = Math.min(1, pod.busyMs / (ms * this.#model.cores));
      pod.busyMs = 0;
    }
    const sum = this.#ready.reduce((total, { cpu }) => total + cpu, 0);
    return this.#ready.length === 0 ? 0 : sum / this.#ready.length;
  }

  /** One request comes in. */
  request(): void {
    const sentAt = this.#clock.now();
    if (this.#ready.length === 0) {
      this.#onEnd("refused", 0);
      return;
    }
    const pod = choose(this.#ready, this.#table, SCORE_DEFAULTS, this.#random.next);
    const end = this.#table.begin(pod.id);
    pod.batcher.submit([null], { deadline: sentAt + this.#model.deadlineMs }).then(
      ([item]) => {
        end("answered");
        this.#onEnd(item?.ok ? "answered" : "late", this.#clock.now() - sentAt);
      },
      () => {
        end("missed");
        this.#onEnd("refused", 0);
      },
    );
  }

  #start(warm: boolean): void {
    const { nodeSeconds, pullSeconds, startSeconds, podsPerNode } = this.#cold;
    const now = this.#clock.now();
    let node = this.#nodes.find(({ pods }) => pods < podsPerNode);
    if (!node) {
      node = { pods: 0, readyAt: warm ? now : now + nodeSeconds * 1000, hasImage: warm };
      this.#nodes.push(node);
    }
    node.pods++;
    const pull = node.hasImage ? 0 : pullSeconds;
    node.hasImage = true;
    const pod: Pod = {
      id: `pod-${++this.#names}`,
      node,
      batcher: this.#batcher(() => pod),
      state: "starting",
      busyMs: 0,
      cpu: 0,
    };
    this.#pods.push(pod);
    const ready = () => {
      if (pod.state !== "starting") return;
      pod.state = "ready";
      this.#ready = [...this.#ready, pod];
      this.#table.seen(pod.id, pod.id);
    };
    if (warm) ready();
    else this.#clock.setTimeout(ready, Math.max(0, node.readyAt - now) + (pull + startSeconds) * 1000);
  }

  #drain(pod: Pod): void {
    const wasReady = pod.state === "ready";
    pod.state = "draining";
    this.#ready = this.#ready.filter((other) => other !== pod);
    this.#table.forget(pod.id);
    const gone = () => {
      this.#pods.splice(this.#pods.indexOf(pod), 1);
      pod.node.pods--;
      if (pod.node.pods === 0) this.#nodes.splice(this.#nodes.indexOf(pod.node), 1);
    };
    if (wasReady) void pod.batcher.drain().then(gone);
    else gone();
  }

  #batcher(pod: () => Pod): Batcher<null, null> {
    const { cores, baseMs, itemMs, spread, maxBatchSize, maxQueueSize } = this.#model;
    return new Batcher<null, null>({
      name: "model",
      maxBatchSize,
      maxQueueSize,
      slots: new FixedSlots(cores),
      clock: this.#clock,
      run: (inputs) => {
        const ms = (baseMs + itemMs * inputs.length) * this.#random.factor(spread);
        pod().busyMs += ms;
        return new Promise((resolve) => this.#clock.setTimeout(() => resolve(inputs), ms));
      },
    });
  }

  /** What pods tell of themselves, as often as ours do. */
  #beat(): void {
    for (const { id, cpu, batcher } of this.#ready) {
      const { queued, inFlight } = batcher.stats;
      this.#table.heartbeat(id, { cpu, wait: 0, memory: 0.5, queued, inFlight, draining: false });
    }
    this.#clock.setTimeout(() => this.#beat(), HEARTBEAT_MS);
  }
}
