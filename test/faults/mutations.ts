import { registerHooks } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Rule } from "./world.ts";

/** What keeps a rule, and how it is taken away: its lines are changed as they are loaded. The product has no switch. */
export interface Mutation {
  readonly mechanism: string;
  /** The rule that must fail without it. */
  readonly breaks: Rule;
  /** Begins so: the story that shows it. @default the first seeds by chance */
  readonly story?: string;
  /** One that is known to show it, so that it need not be looked for. */
  readonly seed?: number;
  /** What stands in which file, once, and what stands there instead. */
  readonly changes: readonly (readonly [file: string, lines: string, instead: string])[];
}

export const MUTATIONS: Readonly<Record<string, Mutation>> = {
  "first-answer": {
    mechanism: "the first answer to a request ends it",
    breaks: "once",
    changes: [["test/faults/process.ts", "if (this.#pending.has(id)) this.#ended", "this.#ended"]],
  },
  deadline: {
    mechanism: "a request that nobody answers ends by its deadline",
    breaks: "ended",
    changes: [
      ["test/faults/world.ts", 'if (request.outcome === undefined) settle(id, "DEADLINE_EXCEEDED");', ""],
    ],
  },
  resend: {
    mechanism: "what was sent over a lost connection is sent again over the next",
    breaks: "lost",
    changes: [["transporters/outbox.ts", "if (request.sent?.on !== channel) yield", "if (!channel) yield"]],
  },
  "resend-to-peer": {
    mechanism: "what was put into a lost queue of a node is sent again",
    breaks: "lost",
    story: "each member of a cluster dies",
    changes: [
      [
        "transporters/requester.ts",
        "if (known.instance === instance) this.#resendOf",
        "if (known.instance === instance) return;\n    if (known.instance === instance) this.#resendOf",
      ],
    ],
  },
  steal: {
    mechanism: "what the chosen node does not take, any other may",
    breaks: "lost",
    story: "a node is killed and long away",
    changes: [["transporters/topology.ts", "messageTtl: stealAfterMs,", ""]],
  },
  "message-size": {
    mechanism: "a request that RabbitMQ found too large is not sent again",
    breaks: "lost",
    story: "one request is larger",
    changes: [["transporters/requester.ts", "if (limit === undefined) return;", "return;"]],
  },
  "message-age": {
    mechanism: "a message that cannot be as old as it looks gives a clock away that fell back",
    breaks: "lost",
    story: "a caller's clock falls back",
    changes: [
      ["transporters/message-age.ts", "Math.max(expected, sample - atMost)", "Math.max(expected, expected)"],
    ],
  },
  convict: {
    mechanism: "a death with nobody else in the process convicts",
    breaks: "poison",
    story: "ten poisons",
    changes: [["transporters/judge.ts", "convict(id);\n      return", "return"]],
  },
  quarantine: {
    mechanism: "a request whose node did not answer is tried apart from others",
    breaks: "poison",
    story: "ten poisons",
    changes: [
      [
        "transporters/consumer.ts",
        "else if (channel && unanswered > 0) this.#quarantine",
        "else if (false) this.#quarantine",
      ],
    ],
  },
  proof: {
    mechanism: "without a proof of its death a process counts as alive",
    breaks: "innocent",
    changes: [["transporters/judge.ts", "if (replaced ||", "if (true || replaced ||"]],
  },
  alone: {
    mechanism: "a suspect is tried with nothing else in the process",
    breaks: "innocent",
    changes: [["transporters/trials.ts", "await this.#court.clear();", ""]],
  },
  withdraw: {
    mechanism: "a trial that was asked for and did not begin is taken back",
    breaks: "innocent",
    seed: 838,
    changes: [
      ["transporters/trials.ts", 'if (ruling === "silence") await this.#withdraw(question);', ""],
      ["transporters/trials.ts", "void this.#withdraw(question);", "void question;"],
      [
        "transporters/consumer.ts",
        'this.#trials.ruled(id, ruling) || ruling !== "go"',
        "this.#trials.ruled(id, ruling) || true",
      ],
    ],
  },
  copies: {
    mechanism: "a copy of a request that runs waits for its answer",
    breaks: "twice",
    changes: [
      [
        "transporters/consumer.ts",
        "    if (running) {\n      void this.#join",
        "    if (false) {\n      void this.#join",
      ],
      [
        "transporters/consumer.ts",
        "if (known) return this.#join(known,",
        "if (false && known) return this.#join(known,",
      ],
    ],
  },
  expiry: {
    mechanism: "a request past its deadline is not computed",
    breaks: "late",
    seed: 789,
    changes: [
      ["transporters/consumer.ts", "} else if (delivery.late || left <= 0) {", "} else if (false) {"],
    ],
  },
  budget: {
    mechanism: "a node begins no more than its prefetch",
    breaks: "budget",
    story: "nodes have their hands full",
    changes: [["transporters/consumer.ts", " && this.#running.size < this.#prefetch;", ";"]],
  },
  "no-tunables": {
    mechanism: "no setting is an argument of a queue that processes share",
    breaks: "start",
    story: "nodes with other settings",
    changes: [
      [
        "transporters/consumer.ts",
        "await channel.assertQueue(queue.name, queue.options);",
        "await channel.assertQueue(queue.name, { ...queue.options, messageTtl: this.#host.settings.stealAfterMs });",
      ],
    ],
  },
  "stop-while-lost": {
    mechanism: "a process may end while it has no connection",
    breaks: "stop",
    story: "a node with nothing to do is told to end",
    changes: [
      [
        "transporters/connection.ts",
        'connecting: ["open", "blocked", "lost", "stopping"],',
        'connecting: ["open", "blocked", "lost"],',
      ],
    ],
  },
  settle: {
    mechanism: "a suspect that is not run is acknowledged all the same",
    breaks: "queue",
    story: "ten poisons",
    changes: [
      [
        "transporters/consumer.ts",
        'channel, message, "poison");\n    }\n    this.#ack(channel, message);',
        'channel, message, "poison");\n    }',
      ],
    ],
  },
  "queue-expiry": {
    mechanism: "a targeted queue ends some time after its node",
    breaks: "orphan",
    story: "nodes die while RabbitMQ is away",
    changes: [["transporters/topology.ts", "expires: TARGETED_EXPIRES_MS,", ""]],
  },
  remember: {
    mechanism: "an answer that may be wanted again is forgotten at the deadline",
    breaks: "map",
    changes: [
      ["transporters/consumer.ts", "if (this.#answered.get(id) === answer) this.#answered.delete(id);", ""],
    ],
  },
  "trial-timer": {
    mechanism: "who has no suspects does not wait for any",
    breaks: "timer",
    story: "ten poisons",
    changes: [["transporters/trials.ts", "if (this.#waiting.length === 0) return;", ""]],
  },
};

const ROOT = pathToFileURL(join(import.meta.dirname, "../../")).href;

/** From here on a module that is imported with `?mutation=<name>` is loaded so, and with it all that it imports. */
export function loadMutations(): void {
  registerHooks({
    resolve(specifier, context, next) {
      const resolved = next(specifier, context);
      const name = mutationOf(context.parentURL);
      const isOurs = resolved.url.startsWith(ROOT) && !resolved.url.includes("/node_modules/");
      return name && isOurs && !mutationOf(resolved.url)
        ? { ...resolved, url: `${resolved.url}?mutation=${name}` }
        : resolved;
    },
    load(url, context, next) {
      const loaded = next(url, context);
      const name = mutationOf(url);
      const changes = (name && MUTATIONS[name]?.changes) || [];
      const own = changes.filter(([file]) => url.startsWith(`${ROOT}${file}?`));
      if (own.length === 0) return loaded;
      return { ...loaded, source: own.reduce(change, String(loaded.source)) };
    },
  });
}

function mutationOf(url = ""): string | undefined {
  return /\?mutation=([\w-]+)$/.exec(url)?.[1];
}

function change(source: string, [file, lines, instead]: Mutation["changes"][number]): string {
  const parts = source.split(lines);
  if (parts.length === 2) return parts.join(instead);
  throw new Error(`Expected "${lines}" once in ${file} but found it ${parts.length - 1} times`);
}
