import { hostname } from "node:os";
import type { BrokerOptions, Service } from "moleculer";
import { defineExporter, defineMiddlewares } from "./lib/define.ts";
import { type Env, env } from "./lib/env.ts";
import { jsonLine, textLine } from "./lib/telemetry/log.ts";
import { count } from "./lib/telemetry/metrics.ts";
import { actionTags, OtlpExporter } from "./lib/telemetry/otlp.ts";
import { HealthChecks } from "./middlewares/health.ts";
import { Load } from "./middlewares/load.ts";
import { Metrics } from "./middlewares/metrics.ts";
import { Peers } from "./middlewares/peers.ts";
import { Prefetch, prefetches } from "./middlewares/prefetch.ts";
import { RequestLog } from "./middlewares/request-log.ts";
import { Scopes } from "./middlewares/scopes.ts";
import { nodeService } from "./mixins/node.ts";
import { COMMANDS } from "./repl/commands.ts";
import { LoadAwareStrategy } from "./strategies/load-aware.ts";
import { AmqpTransporter } from "./transporters/amqp.ts";

/** Everything Moleculer is told, from the settings alone: one process, compose and Kubernetes differ only in these. */
export function brokerOptions(env: Env): BrokerOptions {
  const { prefetch, least } = prefetches(env);
  const transporter = env.TRANSPORTER === "" ? undefined : amqp(env, prefetch);
  return {
    namespace: env.NAMESPACE,
    nodeID: env.NODE_ID || `${env.SERVICES.join("+") || "dl-lambda"}-${hostname()}-${process.pid}`,
    logger: {
      type: "Console",
      options: { level: env.LOG_LEVEL, formatter: env.LOG_FORMAT === "json" ? jsonLine : textLine },
    },
    // CBOR keeps typed arrays and costs 3 % on an image; JSON makes it 3.7 times as large.
    serializer: "CBOR",
    ...(transporter ? { transporter } : {}),
    requestTimeout: env.REQUEST_TIMEOUT_MS,
    heartbeatInterval: 2,
    heartbeatTimeout: 6,
    registry: {
      strategy: LoadAwareStrategy,
      // A local endpoint would be taken without asking the strategy.
      preferLocal: false,
    },
    tracking: { enabled: true, shutdownTimeout: env.DRAIN_GRACE_MS },
    // Ours are in lib/telemetry: Moleculer's know milliseconds and hosts, and cost more than the calls they count.
    metrics: false,
    tracing: env.OTEL_EXPORTER_OTLP_ENDPOINT !== "" && {
      enabled: true,
      exporter: defineExporter(new OtlpExporter({ endpoint: env.OTEL_EXPORTER_OTLP_ENDPOINT })),
      sampling: { rate: env.OTEL_TRACES_SAMPLER_ARG },
      // By default parameters are captured, and these hold images.
      tags: { action: actionTags },
    },
    internalServices: { $node: nodeService() },
    middlewares: defineMiddlewares(
      Metrics(),
      RequestLog(),
      Scopes(),
      Load(),
      Peers(),
      HealthChecks({ port: env.ADMIN_PORT, host: env.HOST }),
      ...(transporter ? [Prefetch({ transporter, prefetch, least })] : []),
    ),
    // bin/run.ts ends the process in order.
    skipProcessEventRegistration: true,
    replOptions: { customCommands: COMMANDS, delimiter: "dl-lambda $" },
  };
}

function amqp(env: Env, prefetch: number): AmqpTransporter {
  const transporter: AmqpTransporter = new AmqpTransporter({
    url: env.TRANSPORTER,
    prefetch,
    minPrefetch: 2 * env.MAX_BATCH_SIZE,
    stealAfterMs: env.STEAL_AFTER_MS,
    maxPendingBytes: env.MAX_PENDING_BYTES,
    deadLetterTtlMs: env.DEAD_LETTER_TTL_MS,
    // Nothing in RabbitMQ outlives the longest deadline a client may ask for.
    maxDeadlineMs: env.MAX_REQUEST_TIMEOUT_MS,
    hearsOthers: () => callsOthers(transporter.broker.services),
    observe: (event, action) => count(transporter.broker, "transport.requests.total", { event, action }),
  });
  return transporter;
}

/** A model calls nobody, unless it says so. A process without services is a REPL. */
function callsOthers(services: readonly Service[]): boolean {
  const own = services.filter(({ name }) => !name.startsWith("$"));
  return (
    own.length === 0 ||
    own.some(({ metadata }) => metadata?.["kind"] !== "model" || metadata["asks"] === true)
  );
}

export default brokerOptions(env);
