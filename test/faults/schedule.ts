import { Random } from "../../testkit/random.ts";

/** One thing that goes wrong, or one request. Times in milliseconds from the beginning. */
export type Step =
  | {
      readonly at: number;
      readonly do: "call";
      readonly caller: number;
      readonly id: string;
      readonly ms: number;
      readonly poison?: boolean;
      /** More bytes than RabbitMQ takes in one message. */
      readonly huge?: boolean;
      /** Milliseconds its caller waits. @default DEADLINE_MS */
      readonly timeout?: number;
      /** Whether that may be too short. */
      readonly mayExpire?: boolean;
    }
  | {
      readonly at: number;
      readonly do: "kill-node" | "stop-node";
      readonly node: number;
      readonly backAfter: number;
    }
  | { readonly at: number; readonly do: "freeze" | "cut"; readonly node: number; readonly for: number }
  | { readonly at: number; readonly do: "cut-caller"; readonly caller: number; readonly for: number }
  | { readonly at: number; readonly do: "close-channel"; readonly node: number }
  | { readonly at: number; readonly do: "close-all" }
  | { readonly at: number; readonly do: "kill-member"; readonly member: number; readonly for: number }
  | { readonly at: number; readonly do: "alarm"; readonly for: number }
  | { readonly at: number; readonly do: "jump"; readonly node: number; readonly by: number }
  | { readonly at: number; readonly do: "jump-caller"; readonly caller: number; readonly by: number };

/** Everything that happens in one run, made from a seed. */
export interface Schedule {
  /** Of what the schedule leaves to chance: who is asked, how long messages take. */
  readonly seed: number;
  readonly members: number;
  readonly nodes: number;
  readonly callers: number;
  /** Whether callers know what RabbitMQ takes in one message, or have to find out. */
  readonly knowsLimit?: boolean;
  readonly steps: readonly Step[];
}

/** When the last fault is over, and nothing but the work is left. */
export const FAULTS_END_MS = 14_000;
/** Time of every request: as long as it may take everything to recover after the last fault, several times over. */
export const DEADLINE_MS = 60_000;
/** What a node's clock jumps in all: one that jumps past a request's deadline rightly takes the request for expired. */
const MOST_JUMPED_MS = DEADLINE_MS / 2;

/** Of calls, a few whose callers are in a hurry: they may end by their deadline. */
const HURRIED = 0.05;
/** Of schedules, those with a request that is too large. */
const WITH_HUGE = 0.15;

/** A schedule by chance. */
export function schedule(seed: number): Schedule {
  const random = new Random(seed);
  // What was added later draws from here, so that a seed still tells the story it is known for.
  const more = new Random(seed ^ 0xadded);
  const huge = more.next() < WITH_HUGE;
  const knowsLimit = more.next() < 0.5;
  const pick = (count: number) => Math.floor(random.next() * count);
  const upTo = (most: number) => Math.round(random.next() * most);
  const members = random.next() < 0.5 ? 1 : 3;
  const nodes = 2 + pick(3);
  const callers = 1 + pick(2);
  const poisons = random.next() < 0.5 ? 0 : 1 + pick(6);
  const steps: Step[] = [];
  const requests = 15 + pick(40);
  for (let i = 0; i < requests; i++) {
    const poison = i < poisons;
    steps.push({
      at: 2000 + upTo(FAULTS_END_MS - 4000),
      do: "call",
      caller: pick(callers),
      id: `${poison ? "poison" : "call"}-${i}`,
      ms: random.next() < 0.1 ? upTo(5000) : upTo(300),
      poison,
      huge: !poison && huge && i === requests - 1,
      ...(!poison && more.next() < HURRIED
        ? { timeout: 200 + Math.round(more.next() * 3000), mayExpire: true }
        : {}),
    });
  }
  const faults = pick(8);
  const jumped = new Array<number>(nodes).fill(0);
  for (let i = 0; i < faults; i++) {
    const at = 2500 + upTo(FAULTS_END_MS - 6000);
    const node = pick(nodes);
    const most = FAULTS_END_MS - at;
    const kinds: Step[] = [
      { at, do: "kill-node", node, backAfter: 500 + upTo(4000) },
      { at, do: "kill-node", node, backAfter: 500 + upTo(4000) },
      { at, do: "stop-node", node, backAfter: 500 + upTo(4000) },
      { at, do: "freeze", node, for: upTo(Math.min(most, 9000)) },
      { at, do: "cut", node, for: upTo(Math.min(most, 9000)) },
      { at, do: "cut-caller", caller: pick(callers), for: upTo(Math.min(most, 9000)) },
      { at, do: "close-channel", node },
      { at, do: "close-all" },
      { at, do: "kill-member", member: pick(members), for: 1000 + upTo(6000) },
      { at, do: "alarm", for: upTo(Math.min(most, 8000)) },
      {
        at,
        do: "jump",
        node,
        by: (random.next() < 0.5 ? -1 : 1) * upTo(MOST_JUMPED_MS - (jumped[node] ?? 0)),
      },
    ];
    const kind = kinds[pick(kinds.length)];
    if (kind) steps.push(kind);
    if (kind?.do === "jump") jumped[node] = (jumped[node] ?? 0) + Math.abs(kind.by);
    // Misfortunes come together.
    if (kind && random.next() < 0.3 && kind.do === "kill-node")
      steps.push({ ...kind, at: at + upTo(1000), node: (node + 1) % nodes });
  }
  return { seed, members, nodes, callers, knowsLimit, steps: steps.sort((a, b) => a.at - b.at) };
}
