import type { Middleware, ServiceBroker } from "moleculer";
import { loadOf } from "../lib/load.ts";
import type { LoadReport } from "../lib/load-table.ts";

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

/** Share of the memory limit, or of time spent waiting for a core, from which on a node pulls less … */
const LOADED = { memory: 0.9, wait: 0.5 };
/** … and below which it pulls all it may again. The gap keeps it from going back and forth. */
const RELIEVED = { memory: 0.8, wait: 0.25 };

/** Whether a node should pull less, given whether it does now. */
export function isLoaded({ memory, wait }: Pick<LoadReport, "memory" | "wait">, loaded: boolean): boolean {
  const mark = loaded ? RELIEVED : LOADED;
  return memory >= mark.memory || wait >= mark.wait;
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
