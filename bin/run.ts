import { setFlagsFromString } from "node:v8";
import type { ServiceBroker } from "moleculer";
import type { Listener } from "../lib/http/listener.ts";
import { StartError } from "../lib/start-error.ts";
import { healthOf } from "../lib/telemetry/health.ts";
import { drain as leaveBalancing } from "../middlewares/health.ts";
import { AmqpTransporter } from "../transporters/amqp.ts";

/**
 * Signals in this time are one: npm passes on a Ctrl-C that the terminal has sent to the server, too, and its shell is
 * gone a moment later.
 */
const ONE_SIGNAL_MS = 2000;

/**
 * The end of a process that ran out of grace: something is still in flight. An exit would wait for threads, and one in
 * native code may never come back.
 */
function endByForce(): never {
  process.kill(process.pid, "SIGKILL");
  process.exit(1);
}

/**
 * The whole life of a server process: settings, services, ready, and an orderly end on SIGTERM or SIGINT. The end has
 * `DRAIN_GRACE_MS`; after that, or at a second signal, the process exits with what it holds unanswered: RabbitMQ gives
 * it to others.
 *
 * @param services what it hosts. Default: what the environment says
 */
export async function run(services?: readonly string[]): Promise<ServiceBroker | undefined> {
  // Else V8 collects the whole heap every 14 requests or so, as each brings half a megabyte of images that live outside
  // of it. With the first they count like the heap itself; with the second that may grow to four times what is alive.
  setFlagsFromString("--external-memory-accounted-in-global-limit");
  setFlagsFromString("--heap-growing-percent=300");
  let broker: ServiceBroker | undefined;
  try {
    // Imported late, so that a wrong environment is one clear message.
    const [{ env }, { createApp }] = await Promise.all([import("../lib/env.ts"), import("./app.ts")]);
    broker = await createApp(env, services);
    stopOnSignal(broker, env.DRAIN_GRACE_MS);
    await broker.start();
  } catch (error) {
    // A process told to stop before it was ready: the drain ends it.
    if (broker && healthOf(broker).state !== "starting") return undefined;
    console.error(error instanceof StartError ? error.message : error);
    process.exit(1);
  }
  const address = listenerOf(broker)?.server.address();
  broker.logger.info(
    address && typeof address === "object"
      ? `Serving on http://${address.address === "0.0.0.0" ? "localhost" : address.address}:${address.port}`
      : "Ready without HTTP",
    { startedInMs: Math.round(process.uptime() * 1000), nodeID: broker.nodeID },
  );
  return broker;
}

function stopOnSignal(broker: ServiceBroker, graceMs: number): void {
  let since: number | undefined;
  const stop = async (signal: NodeJS.Signals) => {
    if (since !== undefined) {
      if (performance.now() - since > ONE_SIGNAL_MS) endByForce();
      return;
    }
    since = performance.now();
    broker.logger.info("Draining", { signal, graceMs });
    setTimeout(() => {
      broker.logger.warn("The grace is over: exiting with work in flight");
      endByForce();
    }, graceMs).unref();
    try {
      await drain(broker);
      process.exit(0);
    } catch (error) {
      broker.logger.error("Stopping failed", error);
      endByForce();
    }
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
}

/** The gateway's HTTP listener, where this process has one. */
function listenerOf(broker: ServiceBroker): Listener | undefined {
  return (broker.getLocalService("gateway") as { readonly listener?: Listener } | undefined)?.listener;
}

/**
 * Ends the work of this node in the order in which it came in: others stop choosing it, the door closes and its last
 * answers go out, what RabbitMQ has delivered is finished, and only then the services stop.
 */
async function drain(broker: ServiceBroker): Promise<void> {
  await leaveBalancing(broker);
  await listenerOf(broker)?.drain();
  const tx = broker.transit?.tx;
  if (tx instanceof AmqpTransporter) await tx.drain();
  await broker.stop();
}
