import { monitorEventLoopDelay } from "node:perf_hooks";
import type { Middleware, ServiceBroker } from "moleculer";
import { gauge, registerMetrics } from "../lib/telemetry/metrics.ts";

const SAMPLE_MS = 5_000;
const RESOLUTION_MS = 10;

/** Declares our metrics on the broker and samples the event loop's delay. */
export function Metrics(): Middleware {
  let delay: ReturnType<typeof monitorEventLoopDelay> | undefined;
  let timer: NodeJS.Timeout;
  return {
    name: "Metrics",
    created(broker: ServiceBroker) {
      registerMetrics(broker);
    },
    async started(broker: ServiceBroker) {
      const histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
      histogram.enable();
      delay = histogram;
      timer = setInterval(() => {
        // The histogram counts its own sampling interval in.
        const seconds = (nanoseconds: number) => Math.max(0, nanoseconds / 1e9 - RESOLUTION_MS / 1e3);
        gauge(broker, "event.loop.delay.seconds", seconds(histogram.percentile(99)), { quantile: "0.99" });
        gauge(broker, "event.loop.delay.seconds", seconds(histogram.max), { quantile: "1" });
        histogram.reset();
      }, SAMPLE_MS).unref();
    },
    async stopped() {
      clearInterval(timer);
      delay?.disable();
    },
  };
}
