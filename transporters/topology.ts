import type { Options } from "amqplib";

/**
 * Version of everything declared in RabbitMQ. A queue's arguments can never be changed, only its name: whoever changes
 * an argument below counts this up. It is part of every name, so that nodes of two versions form two clusters on one
 * RabbitMQ and a rolling upgrade has no mixed requests.
 */
export const TOPOLOGY_VERSION = "v2";

/** The longest deadline a request may have: what lasts in RabbitMQ is bounded by it, whatever a process is set to. */
export const LONGEST_DEADLINE_MS = 600_000;
/** A lasting queue without consumers is deleted after this; longer than any request lives. */
const UNUSED_EXPIRES_MS = LONGEST_DEADLINE_MS + 300_000;
/** A targeted queue's life after its node's connection: long enough to hand all over, and it takes milliseconds. */
const TARGETED_EXPIRES_MS = 120_000;
/** Requests a queue holds. The oldest leave when it is full; an operator who wants fewer sets a policy. */
const MAX_REQUESTS = 1000;
/** Answers and packets of an inbox, whose process reads them at once or is about to lose its connection. */
const MAX_PACKETS = 10_000;
/** Of requests and dead letters in one queue: a quarter of the memory of a small RabbitMQ. */
const MAX_BYTES = 256 * 1024 * 1024;
/** The longest a dead letter may be kept; each has its own expiry below that. */
export const LONGEST_DEAD_LETTER_MS = 30 * 24 * 3_600_000;
/** Deliveries RabbitMQ itself allows. No verdict rests on it: it is there for what kills a node before we see it. */
const DELIVERY_LIMIT = 100;
/** People look at dead letters again and again, and each look is a delivery. RabbitMQ 4 would stop them after 20. */
const NO_DELIVERY_LIMIT = 1_000_000;

export interface Queue {
  readonly name: string;
  readonly options: Options.AssertQueue;
}

/** A connection of a node: its own queues are named after it, so that no two connections ever share one. */
export interface Seat {
  readonly nodeID: string;
  /** Unlike that of any other connection of any process with this node ID. */
  readonly epoch: string;
}

/**
 * Every name and argument in RabbitMQ.
 *
 * ```
 * caller ─► REQX (topic, <seat>.<action>) ─► REQX.<seat>        TTL = steal-after ─┐ expired, too many,
 *              │ alternate exchange: no such queue                                │ or not its action
 *              └────────────────────────────► REQS (topic) ◄────────────────────────┘
 *                                               │ *.<action>
 *                                               ▼
 *                                            REQS.<action>   quorum, pulled by every node with the action
 *                                               │ its consumer died: a suspect
 *                                               ▼
 *                                            REQQ.<action>   quorum, tried in small groups, then alone
 *                                               │ expired; too many; unreadable
 *                                               ▼
 * caller ◄─ error ─ any node ◄─ DEAD ◄─ DEADX (fanout)                any node ─► DEADLETTERS, for people
 *
 * answers, packets and calls for one node ─► NODE (direct, by node ID), packets for all ─► ALL ─► NODE.<seat>, its inbox
 * ```
 *
 * **Nothing lasting has one home.** Queues that outlive a process are quorum queues. A node's own queues live on the
 * member of RabbitMQ it is connected to and are named after that connection: its inbox ends with it, and its targeted
 * queue hands over what it holds. If that member dies they are gone, and the callers send again what they had put there.
 *
 * **No setting is an argument of a lasting queue**, or two processes with different settings could not both start.
 * What a process chooses by its settings is in the names of its own queues, or in a message's expiry.
 *
 * Only kinds that RabbitMQ 4 still has: no mirrors, no transient queues, no global QoS.
 */
export class Topology {
  readonly targetedExchange: string;
  readonly sharedExchange: string;
  readonly deadExchange: string;
  /** Packets for one node: by its node ID. */
  readonly nodeExchange: string;
  /** Packets for all nodes that want them: by the kind of packet. */
  readonly allExchange: string;
  readonly #prefix: string;

  /** @param prefix Moleculer's, with the namespace; the version is added */
  constructor(prefix: string) {
    this.#prefix = `${prefix}.${TOPOLOGY_VERSION}`;
    this.targetedExchange = `${this.#prefix}.REQX`;
    this.sharedExchange = `${this.#prefix}.REQS`;
    this.deadExchange = `${this.#prefix}.DEADX`;
    this.nodeExchange = `${this.#prefix}.NODE`;
    this.allExchange = `${this.#prefix}.ALL`;
  }

  /** Routing key of a request for `action` on a node: two words. */
  key(seat: Seat, action: string): string {
    return `${seatWord(seat)}.${topicWord(action)}`;
  }

  /** Binding of a node's targeted queue. */
  keysOfSeat(seat: Seat): string {
    return `${seatWord(seat)}.*`;
  }

  /** Binding of `action`'s shared queue. */
  keysOfAction(action: string): string {
    return `*.${topicWord(action)}`;
  }

  /** What is for this process and nobody else, and ends with its connection. */
  inbox(seat: Seat): Queue {
    const { name, options } = this.#classic(`NODE.${seatWord(seat)}`, { maxLength: MAX_PACKETS });
    return { name, options: { ...options, exclusive: true } };
  }

  /**
   * The queue of the strategy's choice. Too long or too old, a request goes to the shared queue: `drop-head` is right,
   * the oldest has waited longest for a node that does not keep up.
   * @param stealAfterMs how long a request waits here; part of the name, for `waitedAtMost`
   */
  targeted(seat: Seat, stealAfterMs: number): Queue {
    return this.#classic(`REQX.${seatWord(seat)}.${stealAfterMs}`, {
      expires: TARGETED_EXPIRES_MS,
      messageTtl: stealAfterMs,
      deadLetterExchange: this.sharedExchange,
      maxLength: MAX_REQUESTS,
    });
  }

  /**
   * What any node with the action may take. Dead-lettering strips a message's own expiry, hence the bound here; nodes
   * drop what is past its deadline. Full, the oldest is dead-lettered and its caller told, which `reject-publish`
   * could not do for a dead-lettered message.
   */
  shared(action: string): Queue {
    return this.#requests(`REQS.${topicWord(action)}`);
  }

  /** Where suspects wait for their trial. */
  quarantine(action: string): Queue {
    return this.#requests(`REQQ.${topicWord(action)}`);
  }

  /** What no queue of requests keeps, for any node to tell the caller. */
  dead(): Queue {
    return this.#quorum("DEAD", NO_DELIVERY_LIMIT, {
      messageTtl: LONGEST_DEADLINE_MS,
      maxLength: MAX_REQUESTS,
    });
  }

  /** Poison and garbage, kept for people to look at; the oldest leave when it is full. */
  deadLetters(): Queue {
    const bounds = { messageTtl: LONGEST_DEAD_LETTER_MS, maxLength: MAX_REQUESTS };
    return this.#quorum("DEADLETTERS", NO_DELIVERY_LIMIT, bounds);
  }

  #requests(name: string): Queue {
    return this.#quorum(name, DELIVERY_LIMIT, {
      expires: UNUSED_EXPIRES_MS,
      messageTtl: LONGEST_DEADLINE_MS,
      deadLetterExchange: this.deadExchange,
      maxLength: MAX_REQUESTS,
    });
  }

  #quorum(name: string, deliveries: number, options: Options.AssertQueue): Queue {
    return this.#queue(name, "quorum", {
      ...options,
      arguments: { "x-max-length-bytes": MAX_BYTES, "x-delivery-limit": deliveries },
    });
  }

  #classic(name: string, options: Options.AssertQueue): Queue {
    return this.#queue(name, "classic", options);
  }

  /** The type is always named: else a virtual host's default may make an exclusive queue a quorum queue. */
  #queue(name: string, type: "classic" | "quorum", options: Options.AssertQueue): Queue {
    return {
      name: `${this.#prefix}.${name}`,
      options: {
        ...options,
        durable: true,
        arguments: { "x-queue-type": type, "x-overflow": "drop-head", ...options.arguments },
      },
    };
  }
}

/**
 * How long a message waits in a targeted queue, as its name says: whoever takes it from the shared queue may have
 * another setting.
 * @returns milliseconds; undefined if `queue` is none
 */
export function waitedAtMost(queue: string): number | undefined {
  const wait = /\.REQX\.[^.]+\.(\d+)$/.exec(queue)?.[1];
  return wait === undefined ? undefined : Number(wait);
}

function seatWord({ nodeID, epoch }: Seat): string {
  return topicWord(`${nodeID}@${epoch}`);
}

/** A name as one word of a topic: without the dot, star and hash that mean something there. */
function topicWord(name: string): string {
  return encodeURIComponent(name).replaceAll(".", "%2E").replaceAll("*", "%2A");
}
