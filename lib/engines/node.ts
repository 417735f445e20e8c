import { createHash } from "node:crypto";
import type { ServiceBroker } from "moleculer";
import { readCgroup } from "../load/cgroup.ts";
import { loadOf } from "../load/load.ts";
import type { ModelId } from "../models/identity.ts";
import { perBroker } from "../per-broker.ts";
import { healthOf } from "../telemetry/health.ts";
import { count, liveGauge } from "../telemetry/metrics.ts";
import { BatchObserver } from "../telemetry/observe.ts";
import { Cores, cores } from "./cores.ts";
import type { EngineSpec } from "./engine.ts";
import { type Lease, Leases } from "./leases.ts";
import { type BatchingOptions, Network, type NetworkOptions } from "./network.ts";
import { GIVEN_UP } from "./pool.ts";
import type { RemoteEngines } from "./remote/engine.ts";
import { createEngine, enginesElsewhere } from "./runtimes.ts";
import type { Tensors } from "./tensors.ts";

export interface NetworkSettings {
  readonly id: ModelId;
  readonly spec: Omit<EngineSpec, "threads">;
  /** Threads of one batch that is alone. */
  readonly threads: number;
  /** Engines. */
  readonly instances: number;
  readonly batching: BatchingOptions;
  /** See {@link NetworkOptions.collate}. Of those who share a network the first one's: the model is the same. */
  readonly collate?: (items: readonly Tensors[]) => Tensors;
  /** See {@link NetworkOptions.prove}. */
  readonly prove?: NetworkOptions["prove"];
}

const leasesOf = perBroker(() => new Leases());

/**
 * The network of a model on this node, loaded and warm. Services that ask for the same files in the same way share
 * one. Its batches are measured, its engines' deaths logged, and the node's health knows of them.
 *
 * @throws EngineCrashedError if it cannot be loaded
 */
export function leaseNetwork(broker: ServiceBroker, settings: NetworkSettings): Promise<Lease> {
  const key = createHash("sha256").update(JSON.stringify(settings)).digest("hex");
  return leasesOf(broker).lease(key, () => observedNetwork(broker, key, settings));
}

function observedNetwork(broker: ServiceBroker, key: string, settings: NetworkSettings): Network {
  const { id } = settings;
  const elsewhere = enginesElsewhere(id.name, settings.spec);
  const places = elsewhere ? placesOf(elsewhere) : { ...settings, cores };
  const { threads, instances } = places;
  let heard: string | undefined;
  const labels = { network: id.name, version: String(id.version) };
  const model = `${id.name}/${id.version}`;
  const logger = broker.getLogger("engines");
  const health = healthOf(broker);
  const batches = new BatchObserver(broker, labels, logger);
  const network = new Network({
    ...settings,
    ...places,
    elsewhere: elsewhere !== undefined,
    create:
      elsewhere?.create ??
      ((spec) => createEngine(spec, { name: id.name, maxMemoryBytes: memoryLimit(instances) })),
    onBatch: (report) => batches.observe(report),
    onDeath: (reason) => {
      count(broker, "engine.deaths.total", labels);
      // What is elsewhere and away is looked for every few seconds: once is enough to hear of it.
      if (elsewhere && reason === heard) return;
      heard = reason;
      logger.warn("Engine died", { model, reason });
    },
    onState: (state) => {
      if (state === "up") heard = undefined;
      if (state === "closed") {
        for (const forget of watched) forget();
        void elsewhere?.close();
      } else logger.info("Engines changed", { model, state, engine: network.runtime, threads, instances });
    },
  });
  const watched = [
    liveGauge(broker, "inference.queued", labels, () => network.stats.queued),
    liveGauge(broker, "inference.running", labels, () => network.stats.inFlight),
    liveGauge(broker, "inference.concurrency", labels, () => Math.min(instances, places.cores.size)),
    loadOf(broker).registerQueue(key, () => network.stats),
    // Engines that die one after the other get no work; if that does not end, only a new process mends it.
    health.require({ name: `engines of ${model}`, probe: "ready", met: () => !GIVEN_UP.has(network.state) }),
    health.require({ name: `engines of ${model}`, probe: "live", met: () => network.state !== "lost" }),
  ];
  return network;
}

/** What is computed elsewhere takes no core of this process: so many batches at once, whatever the others do. */
function placesOf({ concurrency }: RemoteEngines): Pick<NetworkOptions, "threads" | "instances" | "cores"> {
  return { threads: concurrency, instances: concurrency, cores: new Cores(concurrency) };
}

/** An engine that takes more is killed, before the system kills the server: the engines and it have equal shares. */
function memoryLimit(instances: number): number {
  return readCgroup().memoryLimitBytes / (instances + 1);
}
