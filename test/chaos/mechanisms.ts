import { createRequire } from "node:module";
import type { Channel, ConsumeMessage, Options } from "amqplib";
import { Redis } from "ioredis";
import { Model } from "../../lib/models/model.ts";
import { ServedModel } from "../../lib/models/served.ts";
import { type ConnectionState, LastingConnection } from "../../transporters/connection.ts";
import { Outbox } from "../../transporters/outbox.ts";

/** What keeps requests from being lost, and how the suite takes it away, from outside: the product has no such switch. */
export interface Mechanism {
  readonly about: string;
  /** Changed settings of every process. */
  readonly env?: (env: Readonly<Record<string, string>>) => Readonly<Record<string, string>>;
  /** Runs in every process before the server starts. */
  readonly before?: () => void;
  /** Runs in every process once the server has started. */
  readonly after?: () => void;
}

export const MECHANISMS = {
  steal: {
    about: "a request that its node has not taken goes to any other",
    env: () => ({ STEAL_AFTER_MS: "59000" }),
  },
  drain: {
    about: "SIGTERM: what is in flight is finished first",
    after: () => {
      process.removeAllListeners("SIGTERM");
      process.once("SIGTERM", () => process.exit(0));
    },
  },
  resend: {
    about: "requests are kept until answered, and sent again over a new connection",
    before: () => {
      Outbox.prototype.unsentOn = function* () {};
    },
  },
  "channel-watch": {
    about: "a channel that dies takes its connection along, and both come back",
    before: () => {
      const { once } = channelPrototype;
      channelPrototype.once = function (this: Channel, event, listener) {
        return event === "close" ? this : once.call(this, event, listener);
      };
    },
  },
  "fail-open": {
    about: "a command to Redis fails at once when Redis is away",
    before: () => {
      const { connect } = Redis.prototype;
      Redis.prototype.connect = function (callback) {
        // As the client comes, but for the time-out.
        Object.assign(this.options, { enableOfflineQueue: true, commandTimeout: undefined });
        this.options.maxRetriesPerRequest = 20;
        return connect.call(this, callback);
      };
    },
  },
  heartbeat: {
    about: "RabbitMQ and node hear of each other's silence within seconds",
    env: ({ TRANSPORTER = "" }) => ({
      TRANSPORTER: `${TRANSPORTER.replaceAll(";", "?heartbeat=0;")}?heartbeat=0`,
    }),
  },
  quarantine: {
    about: "a request that may have killed its node is tried alone, and three times at most",
    before: () => {
      const { consume } = channelPrototype;
      channelPrototype.consume = function (this: Channel, queue, onMessage, options) {
        const forgetful = (message: ConsumeMessage | null) => {
          if (message) {
            message.fields.redelivered = false;
            delete message.properties.headers?.["x-delivery-count"];
          }
          onMessage(message);
        };
        return consume.call(this, queue, forgetful, options);
      };
    },
  },
  admission: {
    about: "the gateway holds a bounded number of requests and refuses the others at once",
    env: () => ({ MAX_IN_FLIGHT: "100000" }),
  },
  "no-tunables": {
    about: "no setting is an argument of a queue that processes share",
    before: () => {
      const { assertQueue } = channelPrototype;
      channelPrototype.assertQueue = function (this: Channel, queue, options) {
        const messageTtl = Number(process.env["MAX_REQUEST_TIMEOUT_MS"] ?? 60_000);
        const shared = /\.REQS\./.test(queue);
        return assertQueue.call(this, queue, shared ? { ...options, messageTtl } : options);
      };
    },
  },
  patience: {
    about: "while RabbitMQ takes no messages, nobody counts as dead for being silent",
    before: () => {
      const { prototype } = LastingConnection;
      const state = Object.getOwnPropertyDescriptor(prototype, "state")?.get as () => ConnectionState;
      Object.defineProperty(prototype, "state", {
        get(this: LastingConnection) {
          const actual = state.call(this);
          return actual === "blocked" ? "open" : actual;
        },
      });
    },
  },
  quorum: {
    about: "what lasts in RabbitMQ is on more than one of its members",
    before: () => {
      const { assertQueue } = channelPrototype;
      channelPrototype.assertQueue = function (this: Channel, queue, options) {
        const { "x-delivery-limit": _, ...rest } = options?.arguments ?? {};
        return assertQueue.call(this, queue, {
          ...options,
          arguments: { ...rest, "x-queue-type": "classic" },
        });
      };
    },
  },
  readiness: {
    about: "a version takes over when it is loaded, and not before",
    before: () => {
      const { load } = ServedModel.prototype;
      ServedModel.prototype.load = async function (settings, beside, onState) {
        if (!beside) return load.call(this, settings, beside, onState);
        onState?.("warming");
        onState?.("checking");
        void load.call(this, settings, beside);
      };
    },
  },
  golden: {
    about: "a version that makes of its golden example what it should not does not take over",
    before: () => {
      Model.prototype.examples = () => [];
    },
  },
  failover: { about: "a client whose gateway is gone asks another" },
  share: {
    about: "no model holds all of the gateway's places, nor all of a dispatcher",
    env: () => ({ MAX_IN_FLIGHT: "100000", MAX_MODEL_IN_FLIGHT: "100000" }),
  },
} as const satisfies Record<string, Mechanism>;

export type MechanismName = keyof typeof MECHANISMS;

export function isMechanism(name: string): name is MechanismName {
  return Object.hasOwn(MECHANISMS, name);
}

interface ChannelMethods {
  assertQueue(this: Channel, queue: string, options?: Options.AssertQueue): Promise<unknown>;
  once(this: Channel, event: string, listener: (...args: unknown[]) => void): Channel;
  consume(
    this: Channel,
    queue: string,
    onMessage: (message: ConsumeMessage | null) => void,
    options?: Options.Consume,
  ): Promise<unknown>;
}

/** The class is not among amqplib's exports. */
const { Channel: channelClass } = createRequire(import.meta.url)("amqplib/lib/channel_model.js") as {
  Channel: { prototype: ChannelMethods };
};
const channelPrototype = channelClass.prototype;
