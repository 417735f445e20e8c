import { Random } from "../../testkit/random.ts";
import { VirtualClock } from "../../testkit/virtual-clock.ts";
import { type Call, ProcessClock, SimulatedProcess } from "./process.ts";
import { Rabbit } from "./rabbit.ts";

/** One thing that goes wrong, or one request. Times in milliseconds from the beginning. */
export type Step =
  | {
      readonly at: number;
      readonly do: "call";
      readonly caller: number;
      readonly id: string;
      readonly ms: number;
      readonly poison: boolean;
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
  | { readonly at: number; readonly do: "jump"; readonly node: number; readonly by: number };

/** Everything that happens in one run, made from a seed. */
export interface Schedule {
  readonly seed: number;
  readonly members: number;
  readonly nodes: number;
  readonly callers: number;
  readonly steps: readonly Step[];
}

/** When the last fault is over, and nothing but the work is left. */
const FAULTS_END_MS = 14_000;
/** Time of every request: as long as it may take everything to recover after the last fault, several times over. */
export const DEADLINE_MS = 60_000;
/** For those that were killed last to come back, and for what they had to be given to others. */
const SETTLING_MS = 10_000;
const END_MS = FAULTS_END_MS + 2 * DEADLINE_MS + SETTLING_MS;
/** Requests that a node computes at once. */
const CONCURRENCY = 8;
/** What a node's clock jumps in all: one that jumps past a request's deadline rightly takes the request for expired. */
const MOST_JUMPED_MS = DEADLINE_MS / 2;
const ACTION = "model.predict";

/** A schedule by chance. */
export function schedule(seed: number): Schedule {
  const random = new Random(seed);
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
  return { seed, members, nodes, callers, steps: steps.sort((a, b) => a.at - b.at) };
}

/** How a run ended. */
export interface Outcome {
  /** Rules that were broken; none: all is well. */
  readonly violations: readonly string[];
  /** What happened, line by line. */
  readonly story: readonly string[];
}

interface Asked {
  readonly poison: boolean;
  readonly caller: number;
  readonly at: number;
  outcome: string | undefined;
}

/** Runs a schedule to its end and looks whether the rules held. */
export async function play({ seed, members, nodes, callers, steps }: Schedule): Promise<Outcome> {
  const time = new VirtualClock();
  const random = new Random(seed ^ 0x5eed);
  const rabbit = new Rabbit({
    clock: time,
    random,
    members,
    heartbeatSeconds: 2,
    published: ({ type, messageId: id = "", headers }) => {
      if (type === "TRIAL") triers.set(id, [...(triers.get(id) ?? []), String(headers["by"])]);
    },
  });
  const story: string[] = [];
  const violations: string[] = [];
  const asked = new Map<string, Asked>();
  const running = new Map<string, Set<string>>();
  /** What ran in an instance when somebody killed it. */
  const killedWith = new Map<string, readonly string[]>();
  /** Which instances asked to try a request alone. */
  const triers = new Map<string, string[]>();
  /**
   * Whether a request had a process to itself, or was about to, when somebody killed it: no caller can tell that from
   * poison. So does what was computed and had not reached its caller.
   */
  const hitAlone = (id: string) =>
    triers.get(id)?.some((instance) => killedWith.get(instance)?.every((other) => other === id)) ?? false;
  const log = (line: string) => story.push(`${(time.now() / 1000).toFixed(3)} ${line}`);
  const violate = (rule: string) => {
    violations.push(rule);
    log(`VIOLATION ${rule}`);
  };
  let instances = 0;
  let cuts = 0;

  const settle = (id: string, code: string) => {
    const request = asked.get(id);
    if (!request || request.outcome !== undefined) return;
    request.outcome = code;
    asking[request.caller]?.forget(id);
    log(`${id} ended: ${code}`);
  };

  const work = (process: SimulatedProcess, call: Call) => {
    const mine = running.get(process.nodeID) ?? new Set();
    running.set(process.nodeID, mine);
    if (mine.has(call.id)) violate(`${process.nodeID} ran ${call.id} twice at once`);
    mine.add(call.id);
    const step = steps.find((each) => each.do === "call" && each.id === call.id);
    const { ms = 0, poison = false } = step?.do === "call" ? step : {};
    log(`${process.nodeID} runs ${call.id}${call.meta?.$suspect ? " as a suspect" : ""}`);
    const wait = mine.size > CONCURRENCY ? 100 * (mine.size - CONCURRENCY) : 0;
    process.clock.setTimeout(() => {
      if (poison) {
        log(`${call.id} kills ${process.nodeID}`);
        crash(process, 800);
        return;
      }
      mine.delete(call.id);
      process.answer(call.id, "ok");
    }, ms + wait);
  };

  const start = (nodeID: string, actions: readonly string[]): SimulatedProcess => {
    const instanceID = `${nodeID}#${instances++}`;
    const process: SimulatedProcess = new SimulatedProcess({
      rabbit,
      time,
      random,
      nodeID,
      instanceID,
      actions,
      settings: {
        prefetch: 16,
        stealAfterMs: 200 + Math.round(random.next() * 600),
        maxDeadlineMs: DEADLINE_MS + Math.round(random.next() * 60_000),
      },
      clock: new ProcessClock(time, Math.round(random.next() * 1e6)),
      work,
      answered: settle,
      log,
    });
    running.delete(nodeID);
    void process.start().catch((error: Error) => violate(`${nodeID} could not start: ${error.message}`));
    return process;
  };

  const serving = Array.from({ length: nodes }, (_, i) => start(`node-${i}`, [ACTION]));
  const asking = Array.from({ length: callers }, (_, i) => start(`caller-${i}`, []));

  /** Dies, and another comes in its place, as Kubernetes would have it. */
  function crash(process: SimulatedProcess, backAfter: number): void {
    if (!process.alive) return;
    process.kill();
    running.delete(process.nodeID);
    const index = serving.indexOf(process);
    time.setTimeout(() => {
      if (serving[index] === process) serving[index] = start(process.nodeID, [ACTION]);
    }, backAfter);
  }

  const cut = (process: SimulatedProcess | undefined, ms: number): undefined => {
    const link = process?.link;
    const cause = `cut-${cuts++}`;
    link?.cut(cause);
    time.setTimeout(() => link?.heal(cause), ms);
  };

  const call = (step: Extract<Step, { do: "call" }>): void => {
    const { id, caller, poison } = step;
    const known = asked.get(id);
    const request = known ?? { poison, caller, at: time.now(), outcome: undefined };
    asked.set(id, request);
    const left = request.at + DEADLINE_MS - time.now();
    if (!known) time.setTimeout(() => settle(id, "DEADLINE_EXCEEDED"), DEADLINE_MS);
    if (request.outcome !== undefined || left <= 0) return;
    // No node is known at this moment: whoever calls retries that, as the dispatcher does.
    if (!asking[caller]?.call({ id, timeout: left }, ACTION)) time.setTimeout(() => call(step), 200);
  };

  for (const step of steps) {
    time.setTimeout(() => {
      log(JSON.stringify(step));
      switch (step.do) {
        case "call":
          return call(step);
        case "kill-node": {
          const victim = serving[step.node];
          if (!victim?.alive) return undefined;
          killedWith.set(victim.instanceID, [...(running.get(victim.nodeID) ?? [])]);
          crash(victim, step.backAfter);
          return undefined;
        }
        case "stop-node": {
          const victim = serving[step.node];
          if (!victim?.alive) return undefined;
          victim.stop().then(
            () => {
              if (serving[step.node] === victim) serving[step.node] = start(victim.nodeID, [ACTION]);
            },
            (error: Error) => {
              violate(`${victim.nodeID} could not stop in good order: ${error.message}`);
              crash(victim, step.backAfter);
            },
          );
          return undefined;
        }
        case "freeze": {
          const victim = serving[step.node];
          victim?.freeze();
          time.setTimeout(() => victim?.thaw(), step.for);
          return undefined;
        }
        case "cut":
          return cut(serving[step.node], step.for);
        case "cut-caller":
          return cut(asking[step.caller], step.for);
        case "close-channel":
          serving[step.node]?.link?.closeChannel("PRECONDITION_FAILED - unknown delivery tag 999");
          return undefined;
        case "close-all":
          return rabbit.closeAll();
        case "kill-member":
          rabbit.kill(step.member);
          time.setTimeout(() => rabbit.start(step.member), step.for);
          return undefined;
        case "alarm":
          rabbit.block("low on memory");
          time.setTimeout(() => rabbit.unblock(), step.for);
          return undefined;
        case "jump":
          serving[step.node]?.clock.jump(step.by);
          return undefined;
      }
    }, step.at);
  }

  const isOver = () => [...asked.values()].every(({ outcome }) => outcome !== undefined);
  for (let at = FAULTS_END_MS + SETTLING_MS; at < END_MS && !isOver(); at += 1000) await time.runUntil(at);
  // Nothing is expected any more but that what is left expires: heartbeats would only cost time.
  for (const process of [...serving, ...asking]) process.silent = true;
  await time.runUntil(END_MS);
  for (const [id, { poison, outcome }] of asked) {
    if (outcome === undefined) violate(`${id} never ended`);
    else if (poison && outcome !== "POISON_REQUEST") violate(`${id} was not convicted: ${outcome}`);
    else if (!poison && outcome === "POISON_REQUEST" && hitAlone(id)) log(`${id} had bad luck`);
    else if (!poison && outcome === "POISON_REQUEST") violate(`${id} is innocent and was convicted`);
    else if (!poison && outcome !== "ok") violate(`${id} was lost: ${outcome}`);
  }
  for (const process of [...serving, ...asking]) {
    const { asked: kept, served } = process.open;
    if (process.alive && kept > 0) violate(`${process.nodeID} still keeps ${kept} requests`);
    if (process.alive && served > 0) violate(`${process.nodeID} still works on ${served} requests`);
  }
  for (const { name, length, unacked } of rabbit.queues.values()) {
    if (length + unacked > 0 && !name.endsWith("DEADLETTERS"))
      violate(`${length} messages and ${unacked} unanswered ones are left in ${name}`);
  }
  return { violations, story };
}
