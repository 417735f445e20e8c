import { Random } from "../../testkit/random.ts";
import { VirtualClock } from "../../testkit/virtual-clock.ts";
import { type Call, ProcessClock, SimulatedProcess } from "./process.ts";
import { Rabbit } from "./rabbit.ts";
import { DEADLINE_MS, FAULTS_END_MS, type Schedule, type Step } from "./schedule.ts";

/** For those that were killed last to come back, and for what they had to be given to others. */
const SETTLING_MS = 10_000;
/** When every request has ended: those of before the last fault, and the poison that is tried last. */
const END_MS = FAULTS_END_MS + 2 * DEADLINE_MS + SETTLING_MS;
/** After it, until everything that has a time of its own is gone: queues of nodes that died last too (2 min). */
const AFTERMATH_MS = 130_000;
/** Requests that a node computes at once. */
const CONCURRENCY = 8;
/** What a message may take outside of queues, and what clocks may drift: so late a request may still begin. */
const LATE_MS = 1500;
/** Bytes that this RabbitMQ takes in one message. The packets of a simulated process are far smaller. */
const MAX_MESSAGE_BYTES = 4096;
const ACTION = "model.predict";

/**
 * The rules. Each names what was broken, so that a test can take a mechanism away and see its own rule fail.
 */
export const RULES = {
  ended: "has no outcome",
  once: "ended a second time",
  lost: "was lost",
  innocent: "is innocent and was convicted",
  poison: "is poison and was not convicted",
  twice: "ran twice at once",
  late: "began after its deadline",
  budget: "runs more than its prefetch",
  start: "could not start, or was told to end",
  stop: "could not stop in good order",
  queue: "is left in a queue",
  orphan: "is the queue of nobody",
  map: "is left in a map",
  timer: "is left on a clock",
} as const;

export type Rule = keyof typeof RULES;

export interface Violation {
  readonly rule: Rule;
  /** Whose, and what. */
  readonly about: string;
}

/** How a run ended. */
export interface Outcome {
  /** Rules that were broken; none: all is well. */
  readonly violations: readonly Violation[];
  /** What happened, line by line. */
  readonly story: readonly string[];
}

type CallStep = Extract<Step, { do: "call" }>;

interface Asked {
  readonly step: CallStep;
  readonly at: number;
  readonly timeout: number;
  outcome: string | undefined;
}

/** Runs a schedule to its end and looks whether the rules held. */
export async function play({
  seed,
  members,
  nodes,
  callers,
  knowsLimit = true,
  steps,
}: Schedule): Promise<Outcome> {
  const time = new VirtualClock();
  const random = new Random(seed ^ 0x5eed);
  const prefetches = new Random(seed ^ 0xb0d9e7);
  const rabbit = new Rabbit({
    clock: time,
    random,
    members,
    heartbeatSeconds: 2,
    maxMessageBytes: MAX_MESSAGE_BYTES,
    published: ({ type, messageId: id = "", headers }) => {
      if (type === "TRIAL") triers.set(id, [...(triers.get(id) ?? []), String(headers["by"])]);
    },
  });
  const story: string[] = [];
  const violations: Violation[] = [];
  const asked = new Map<string, Asked>();
  const running = new Map<string, Set<string>>();
  /** What ran in an instance when somebody killed it. */
  const killedWith = new Map<string, readonly string[]>();
  /** Which instances asked to try a request alone. */
  const triers = new Map<string, string[]>();
  /** When a process had its first young request of each caller: what is first of all is young to it, however old it is. */
  const heardBy = new Map<SimulatedProcess, Map<string, number>>();
  /** Whether clocks and ways can be trusted: what stood still outside of a queue looks younger than it is. */
  const timely = !steps.some((step) =>
    ["jump", "jump-caller", "freeze", "cut", "cut-caller", "alarm"].includes(step.do),
  );
  /**
   * Whether a request had a process to itself, or was about to, when somebody killed it: no caller can tell that from
   * poison. So does what was computed and had not reached its caller.
   */
  const hitAlone = (id: string) =>
    triers.get(id)?.some((instance) => killedWith.get(instance)?.every((other) => other === id)) ?? false;
  const log = (line: string) => story.push(`${(time.now() / 1000).toFixed(3)} ${line}`);
  const violate = (rule: Rule, about: string) => {
    violations.push({ rule, about });
    log(`VIOLATION ${about}: ${RULES[rule]}`);
  };
  let instances = 0;
  /** Nothing is expected any more but that what is left expires: heartbeats would only cost time. */
  let quiet = false;
  let cuts = 0;

  const settle = (id: string, code: string) => {
    const request = asked.get(id);
    if (!request) return;
    if (request.outcome !== undefined) {
      violate("once", `${id}, ${request.outcome} and then ${code}`);
      return;
    }
    request.outcome = code;
    log(`${id} ended: ${code}`);
  };

  const work = (process: SimulatedProcess, call: Call) => {
    const mine = running.get(process.nodeID) ?? new Set();
    running.set(process.nodeID, mine);
    if (mine.has(call.id)) violate("twice", `${call.id} on ${process.nodeID}`);
    mine.add(call.id);
    if (mine.size > process.prefetch) violate("budget", `${process.nodeID} (${mine.size})`);
    const request = asked.get(call.id);
    if (request) {
      const heard = heardBy.get(process) ?? new Map<string, number>();
      heardBy.set(process, heard);
      const age = time.now() - request.at;
      const knew = (heard.get(call.sender) ?? Number.POSITIVE_INFINITY) < request.at;
      if (age > request.timeout + LATE_MS && knew && timely) violate("late", `${call.id}, ${age} ms old`);
      if (age < LATE_MS && !heard.has(call.sender)) heard.set(call.sender, time.now());
    }
    const { ms = 0, poison = false } = request?.step ?? {};
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
        prefetch: 4 ** (1 + Math.floor(prefetches.next() * 3)),
        stealAfterMs: 200 + Math.round(random.next() * 600),
        maxDeadlineMs: DEADLINE_MS + Math.round(random.next() * 60_000),
        ...(knowsLimit ? { maxMessageBytes: MAX_MESSAGE_BYTES } : {}),
      },
      clock: new ProcessClock(time, Math.round(random.next() * 1e6)),
      work,
      answered: settle,
      fatal: (message) => violate("start", `${nodeID}, ${message}`),
      log,
    });
    process.silent = quiet;
    running.delete(nodeID);
    void process.start().catch((error: Error) => violate("start", `${nodeID}, ${error.message}`));
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

  const call = (step: CallStep): void => {
    const { id, caller, timeout = DEADLINE_MS, huge = false } = step;
    const known = asked.get(id);
    const request = known ?? { step, at: time.now(), timeout, outcome: undefined };
    asked.set(id, request);
    const left = request.at + timeout - time.now();
    // Moleculer's own timer: a request that is still pending ends by it.
    if (!known)
      time.setTimeout(() => {
        asking[caller]?.forget(id);
        if (request.outcome === undefined) settle(id, "DEADLINE_EXCEEDED");
      }, timeout);
    if (request.outcome !== undefined || left <= 0) return;
    const bytes = huge ? 2 * MAX_MESSAGE_BYTES : 0;
    // No node is known at this moment: whoever calls retries that, as the dispatcher does.
    if (!asking[caller]?.call({ id, timeout: left }, ACTION, bytes)) time.setTimeout(() => call(step), 200);
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
              violate("stop", `${victim.nodeID}, ${error.message}`);
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
        case "jump-caller":
          asking[step.caller]?.clock.jump(step.by);
          return undefined;
        case "jump":
          serving[step.node]?.clock.jump(step.by);
          return undefined;
      }
    }, step.at);
  }

  const isOver = () => [...asked.values()].every(({ outcome }) => outcome !== undefined);
  await time.runUntil(FAULTS_END_MS + SETTLING_MS);
  while (time.now() < END_MS && !isOver()) await time.runUntil(time.now() + 1000);
  quiet = true;
  for (const process of [...serving, ...asking]) process.silent = true;
  await time.runUntil(time.now() + AFTERMATH_MS);
  for (const [id, { step, outcome }] of asked) {
    const expected = step.poison ? "POISON_REQUEST" : step.huge ? "PAYLOAD_TOO_LARGE" : "ok";
    if (outcome === expected || (outcome === "DEADLINE_EXCEEDED" && step.mayExpire)) continue;
    if (outcome === undefined) violate("ended", id);
    else if (step.poison) violate("poison", `${id}, ${outcome}`);
    else if (outcome !== "POISON_REQUEST") violate("lost", `${id}, ${outcome}`);
    else if (hitAlone(id)) log(`${id} had bad luck`);
    else violate("innocent", id);
  }
  for (const process of [...serving, ...asking].filter(({ alive }) => alive)) {
    for (const [what, count] of Object.entries(process.kept))
      if (count > 0) violate("map", `${count} ${what} on ${process.nodeID}`);
    if (process.clock.pending > 0) violate("timer", `${process.clock.pending} on ${process.nodeID}`);
  }
  const own = new Set([...serving, ...asking].flatMap((process) => (process.alive ? process.ownQueues : [])));
  for (const { name, length, unacked } of rabbit.queues.values()) {
    const kept = /\.(NODE|REQX)\./.test(name) ? "own" : name.endsWith("DEADLETTERS") ? "letters" : "shared";
    if (kept === "own" && !own.has(name)) violate("orphan", name);
    if (kept !== "letters" && length + unacked > 0)
      violate("queue", `${length} messages and ${unacked} unanswered ones in ${name}`);
  }
  return { violations, story };
}
