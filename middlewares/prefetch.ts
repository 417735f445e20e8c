import type { Middleware, ServiceBroker } from "moleculer";
import type { Env } from "../lib/env.ts";
import { loadOf } from "../lib/load/load.ts";
import type { LoadReport } from "../lib/load/table.ts";

/** The part of a transporter that can pull less. */
export interface Puller {
  setPrefetch(prefetch: number): Promise<void>;
}

export interface PrefetchOptions {
  readonly transporter: Puller;
  /** Requests this node pulls at once while it has room. */
  readonly prefetch: number;
  /** And while it has none: at least 1. */
  readonly least: number;
  /** Milliseconds between two looks at the load. @default 2000 */
  readonly everyMs?: number;
}

/** Batches' worth of requests that a node takes from RabbitMQ unless told otherwise: one computed, the rest at hand. */
const PREFETCHED_BATCHES = 4;
/** What AMQP has room for. */
const MAX_PREFETCH = 65_535;

/**
 * How many requests a process takes from RabbitMQ at once, and how many at least when it is short of room. A
 * dispatcher's requests wait for models: it must be able to hold all that one model may have open and more, or a flood
 * on that model stands before the others in its queue, where nobody refuses it.
 */
export function prefetches(
  env: Pick<Env, "SERVICES" | "PREFETCH" | "MAX_BATCH_SIZE" | "MAX_MODEL_IN_FLIGHT">,
): Pick<PrefetchOptions, "prefetch" | "least"> {
  const batches = { prefetch: PREFETCHED_BATCHES * env.MAX_BATCH_SIZE, least: env.MAX_BATCH_SIZE };
  const dispatches = env.SERVICES.length === 0 || env.SERVICES.includes("dispatcher");
  const own = dispatches
    ? {
        prefetch: Math.max(2 * env.MAX_MODEL_IN_FLIGHT, batches.prefetch),
        least: env.MAX_MODEL_IN_FLIGHT + env.MAX_BATCH_SIZE,
      }
    : batches;
  const prefetch = Math.min(env.PREFETCH || own.prefetch, MAX_PREFETCH);
  return { prefetch, least: Math.min(own.least, prefetch) };
}

/** Share of the memory limit, or of time spent waiting for a core, from which on a node pulls less … */
const LOADED = { memory: 0.9, wait: 0.5 };
/** … and below which it pulls all it may again. The gap keeps it from going back and forth. */
const RELIEVED = { memory: 0.8, wait: 0.25 };

/**
 * Whether a node should pull less, given whether it does now. Not one without work for want of cores: it pulls nothing
 * anyway, and while a cluster starts all its processes wait for cores.
 */
export function isLoaded(
  { memory, wait, queued, inFlight }: Pick<LoadReport, "memory" | "wait" | "queued" | "inFlight">,
  loaded: boolean,
): boolean {
  const mark = loaded ? RELIEVED : LOADED;
  return memory >= mark.memory || (wait >= mark.wait && (loaded || queued + inFlight > 0));
}

/**
 * A node short of memory or CPU pulls less from RabbitMQ: the strategy sends it less as well, but shared queues are
 * pulled from without asking it.
 */
export function Prefetch(options: PrefetchOptions): (broker: ServiceBroker) => Middleware {
  const { transporter, prefetch, least, everyMs = 2_000 } = options;
  return function createPrefetch(broker) {
    let loaded = false;
    let timer: NodeJS.Timeout | undefined;
    return {
      name: "Prefetch",
      async started() {
        timer = setInterval(() => {
          const report = loadOf(broker).report(false);
          const now = isLoaded(report, loaded);
          if (now === loaded) return;
          loaded = now;
          const { memory, wait } = report;
          broker.logger.info(loaded ? "Short of room, pulling less" : "Room again, pulling all", {
            memory,
            wait,
          });
          transporter.setPrefetch(loaded ? least : prefetch).catch((error: Error) => {
            broker.logger.warn("The prefetch could not be changed", { reason: error.message });
          });
        }, everyMs).unref();
      },
      async stopped() {
        clearInterval(timer);
      },
    };
  };
}
