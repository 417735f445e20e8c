import type { Schedule, Step } from "./schedule.ts";

/** What once lost requests, as the shortest schedule that shows it. */
export interface Story {
  readonly name: string;
  readonly schedule: Schedule;
}

type Call = Extract<Step, { do: "call" }>;

/** Requests at a steady rate: `count` of them from `from` on, one each `every` milliseconds. */
function calls(
  name: string,
  { from, every, count, ...how }: { from: number; every: number; count: number } & Partial<Call>,
): Step[] {
  return Array.from({ length: count }, (_, i) => ({
    do: "call",
    at: from + i * every,
    caller: 0,
    id: `${name}-${i}`,
    ms: 100,
    ...how,
  }));
}

function story(name: string, { steps, ...setting }: Partial<Schedule> & Pick<Schedule, "steps">): Story {
  const inOrder = steps.toSorted((a, b) => a.at - b.at);
  return { name, schedule: { seed: 1, members: 1, nodes: 3, callers: 1, ...setting, steps: inOrder } };
}

export const STORIES = [
  story("each member of a cluster dies in turn, and takes what lives on it along", {
    members: 3,
    nodes: 4,
    callers: 2,
    steps: [
      ...calls("call", { from: 2500, every: 20, count: 400, ms: 1000 }),
      ...calls("other", { from: 2510, every: 20, count: 400, caller: 1, ms: 1000 }),
      { at: 3000, do: "kill-member", member: 0, for: 2500 },
      { at: 6500, do: "kill-member", member: 1, for: 2500 },
      { at: 9800, do: "kill-member", member: 2, for: 2500 },
    ],
  }),
  story("nodes with other settings come in the place of those that leave", {
    nodes: 3,
    steps: [
      ...calls("call", { from: 2500, every: 50, count: 150 }),
      { at: 3000, do: "stop-node", node: 0, backAfter: 500 },
      { at: 5000, do: "stop-node", node: 1, backAfter: 500 },
      { at: 7000, do: "stop-node", node: 2, backAfter: 500 },
    ],
  }),
  story("one request is larger than RabbitMQ takes, and its caller does not know", {
    knowsLimit: false,
    callers: 2,
    steps: [
      ...calls("call", { from: 2500, every: 50, count: 60 }),
      ...calls("other", { from: 2500, every: 50, count: 60, caller: 1 }),
      ...calls("huge", { from: 3000, every: 700, count: 3, huge: true }),
    ],
  }),
  story("ten poisons in five seconds among ordinary requests", {
    nodes: 4,
    callers: 2,
    steps: [
      ...calls("call", { from: 2500, every: 60, count: 100 }),
      ...calls("slow", { from: 2500, every: 700, count: 10, caller: 1, ms: 2500 }),
      ...calls("poison", { from: 3000, every: 500, count: 10, poison: true }),
    ],
  }),
  story("connections are lost again and again, and nobody dies", {
    nodes: 2,
    steps: [
      ...calls("slow", { from: 2500, every: 200, count: 12, ms: 4000 }),
      { at: 4000, do: "close-channel", node: 0 },
      { at: 4200, do: "close-channel", node: 1 },
      { at: 5500, do: "close-all" },
      { at: 6500, do: "close-channel", node: 0 },
      { at: 6600, do: "close-channel", node: 1 },
      { at: 8000, do: "close-all" },
    ],
  }),
  story("two nodes are killed 0.8 s apart", {
    nodes: 3,
    steps: [
      ...calls("call", { from: 2500, every: 40, count: 100, ms: 400, timeout: 15_000 }),
      { at: 4000, do: "kill-node", node: 0, backAfter: 3000 },
      { at: 4800, do: "kill-node", node: 1, backAfter: 3000 },
    ],
  }),
  story("a node is killed and long away, and its callers are in a hurry", {
    nodes: 3,
    steps: [
      ...calls("call", { from: 2500, every: 40, count: 200, timeout: 5000 }),
      { at: 4000, do: "kill-node", node: 0, backAfter: 9000 },
    ],
  }),
  story("nodes die while RabbitMQ is away", {
    nodes: 3,
    steps: [
      ...calls("call", { from: 2500, every: 100, count: 60 }),
      { at: 4000, do: "kill-member", member: 0, for: 4000 },
      { at: 5000, do: "kill-node", node: 0, backAfter: 5000 },
      { at: 5500, do: "kill-node", node: 1, backAfter: 5000 },
    ],
  }),
  story("nodes have their hands full, and others take what they do not", {
    nodes: 2,
    steps: calls("slow", { from: 2500, every: 20, count: 120, ms: 900 }),
  }),
  story("a node is told to end while RabbitMQ is away", {
    nodes: 2,
    steps: [
      ...calls("slow", { from: 2500, every: 100, count: 40, ms: 2500 }),
      { at: 4000, do: "kill-member", member: 0, for: 4000 },
      { at: 4500, do: "stop-node", node: 0, backAfter: 500 },
    ],
  }),
  story("a node with nothing to do is told to end while RabbitMQ is away", {
    nodes: 2,
    steps: [
      ...calls("before", { from: 2500, every: 100, count: 10 }),
      { at: 5000, do: "kill-member", member: 0, for: 4000 },
      { at: 5500, do: "stop-node", node: 0, backAfter: 500 },
      ...calls("after", { from: 6000, every: 100, count: 20 }),
    ],
  }),
  story("a caller's clock falls back by more than its requests have time", {
    steps: [
      ...calls("before", { from: 2500, every: 50, count: 30 }),
      { at: 4500, do: "jump-caller", caller: 0, by: -90_000 },
      ...calls("after", { from: 5000, every: 100, count: 40 }),
    ],
  }),
  story("a node is stopped, and what it has comes back within ten seconds", {
    nodes: 2,
    steps: [
      ...calls("call", { from: 2500, every: 50, count: 80, ms: 300, timeout: 10_000 }),
      { at: 4000, do: "freeze", node: 0, for: 9900 },
    ],
  }),
] as const satisfies readonly Story[];
