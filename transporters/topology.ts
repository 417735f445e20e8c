import type { Options } from "amqplib";
import type { Settings } from "./options.ts";

/**
 * Version of everything declared in RabbitMQ. A queue's arguments can never be changed, only its name: whoever changes
 * an argument below counts this up. It is part of every name, Moleculer's own included, so that nodes of two versions
 * form two clusters on one RabbitMQ and a rolling upgrade has no mixed requests.
 */
export const TOPOLOGY_VERSION = "v1";

/** A quorum queue without consumers is deleted after this; longer than any request lives. */
const SHARED_QUEUE_EXPIRES_MS = 600_000;
/** As Moleculer's own queues: a node that is back within this finds its answers. */
const NODE_QUEUE_EXPIRES_MS = 120_000;
const DEAD_LETTER_TTL_MS = 7 * 24 * 3_600_000;
const DEAD_LETTER_MAX_BYTES = 64 * 1024 * 1024;
/** Deliveries RabbitMQ itself allows, should every node fail to count them. Above what `judge` allows. */
const DELIVERY_LIMIT = 5;

export interface Queue {
  readonly name: string;
  readonly options: Options.AssertQueue;
}

/**
 * Every name and argument of the request path.
 *
 * ```
 * caller ─► REQX (topic, <node>.<action>) ─► REQX.<node>        TTL = steal-after ─┐ expired, too many,
 *              │ alternate exchange: no such queue                                │ or not its action
 *              └────────────────────────────► REQS (topic) ◄────────────────────────┘
 *                                               │ *.<action>
 *                                               ▼
 *                                            REQS.<action>   quorum, pulled by every node with the action
 *                                               │ its consumer died: a suspect
 *                                               ▼
 *                                            REQQ.<action>   quorum, one at a time
 *                                               │ three attempts; expired; too many
 *                                               ▼
 * caller ◄─ error ─ any node ◄─ DEAD ◄─ DEADX (fanout)                any node ─► DEADLETTERS, for people
 * ```
 * Calls for one particular node (`nodeID` option, `$node.*`) go to `REQ.<node>`, which nobody else may read.
 *
 * Only kinds that RabbitMQ 4 still has: durable classic queues without mirrors, quorum queues, no global QoS.
 */
export class Topology {
  readonly targetedExchange: string;
  readonly sharedExchange: string;
  readonly deadExchange: string;
  readonly #prefix: string;
  readonly #settings: Settings;

  /** @param prefix Moleculer's, with the namespace and `TOPOLOGY_VERSION` */
  constructor(prefix: string, settings: Settings) {
    this.#prefix = prefix;
    this.#settings = settings;
    this.targetedExchange = `${prefix}.REQX`;
    this.sharedExchange = `${prefix}.REQS`;
    this.deadExchange = `${prefix}.DEADX`;
  }

  /** Routing key of a request for `action` on `nodeID`: two words. */
  key(nodeID: string, action: string): string {
    return `${word(nodeID)}.${word(action)}`;
  }

  /** Binding of `nodeID`'s own queue. */
  keysOfNode(nodeID: string): string {
    return `${word(nodeID)}.*`;
  }

  /** Binding of `action`'s shared queue. */
  keysOfAction(action: string): string {
    return `*.${word(action)}`;
  }

  /**
   * The queue of the strategy's choice. Too long or too old, a request goes to the shared queue: `drop-head` is right,
   * the oldest has waited longest for a node that does not keep up.
   */
  targeted(nodeID: string): Queue {
    return this.#queue(`REQX.${nodeID}`, "classic", {
      expires: NODE_QUEUE_EXPIRES_MS,
      messageTtl: this.#settings.stealAfterMs,
      deadLetterExchange: this.sharedExchange,
      maxLength: this.#settings.maxQueueLength,
    });
  }

  /** The queue of calls that only `nodeID` can answer. */
  pinned(nodeID: string): Queue {
    return this.#queue(`REQ.${nodeID}`, "classic", {
      expires: NODE_QUEUE_EXPIRES_MS,
      messageTtl: this.#settings.maxDeadlineMs,
      deadLetterExchange: this.deadExchange,
      maxLength: this.#settings.maxQueueLength,
    });
  }

  /**
   * What any node with the action may take. Dead-lettering strips a message's own expiry, hence the bound here; nodes
   * drop what is past its deadline. Full, the oldest is dead-lettered and its caller told, which `reject-publish`
   * could not do for a dead-lettered message.
   */
  shared(action: string): Queue {
    return this.#queue(`REQS.${word(action)}`, "quorum", this.#untilDead());
  }

  /** Where suspects wait to be tried alone. */
  quarantine(action: string): Queue {
    return this.#queue(`REQQ.${word(action)}`, "quorum", this.#untilDead());
  }

  /** Death notices, for any node to tell the caller. A lost notice costs a time-out, so it is bounded, not safe. */
  dead(): Queue {
    return this.#queue("DEAD", "classic", {
      messageTtl: this.#settings.maxDeadlineMs,
      maxLength: 10 * this.#settings.maxQueueLength,
    });
  }

  /** Poison and garbage, kept a week for people to look at; the oldest leave when it is full. */
  deadLetters(): Queue {
    return this.#queue("DEADLETTERS", "classic", {
      messageTtl: DEAD_LETTER_TTL_MS,
      maxLength: this.#settings.maxQueueLength,
      arguments: { "x-max-length-bytes": DEAD_LETTER_MAX_BYTES },
    });
  }

  /** Answers to `nodeID`. */
  responses(nodeID: string): Queue {
    return this.#queue(`RES.${nodeID}`, "classic", {
      expires: NODE_QUEUE_EXPIRES_MS,
      messageTtl: this.#settings.maxDeadlineMs,
      maxLength: 10 * this.#settings.maxQueueLength,
    });
  }

  #untilDead(): Options.AssertQueue {
    return {
      expires: SHARED_QUEUE_EXPIRES_MS,
      messageTtl: this.#settings.maxDeadlineMs,
      deadLetterExchange: this.deadExchange,
      maxLength: this.#settings.maxQueueLength,
      arguments: { "x-delivery-limit": DELIVERY_LIMIT },
    };
  }

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

/** A name as one word of a topic: without the dot, star and hash that mean something there. */
function word(name: string): string {
  return encodeURIComponent(name).replaceAll(".", "%2E").replaceAll("*", "%2A");
}
