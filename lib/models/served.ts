import type { ServiceBroker } from "moleculer";
import type { SettledItem } from "../batching/options.ts";
import type { Lease } from "../engines/leases.ts";
import { leaseNetwork, type NetworkSettings } from "../engines/node.ts";
import type { Tensors } from "../engines/tensors.ts";
import { ModelUnavailableError, PredictionFailedError, ServingError, toWire } from "../errors.ts";
import type { Scope } from "../request/scope.ts";
import { observeItems } from "../telemetry/observe.ts";
import type { PredictedItem, PredictParams, PredictResult, ServedVersion, Settled } from "../types.ts";
import type { ModelId } from "./identity.ts";
import { difference, type Model } from "./model.ts";

export interface ServingSettings extends Pick<NetworkSettings, "threads" | "instances"> {
  /** Runtime that loads it; "": the one that its manifest names. */
  readonly runtime: string;
  readonly checkGolden: boolean;
  readonly batching: {
    readonly maxBatchSize: number;
    readonly maxQueueSize: number;
    readonly maxQueueDelayMs: number;
    /** 0: none. */
    readonly latencyTargetMs: number;
  };
}

/** One version of a model as one service serves it. Its network may be shared with other services of the process. */
export class ServedModel {
  readonly #broker: ServiceBroker;
  readonly #service: string;
  readonly #model: Model;
  #lease: Lease | undefined;

  constructor(broker: ServiceBroker, service: string, model: Model) {
    this.#broker = broker;
    this.#service = service;
    this.#model = model;
  }

  get id(): ModelId {
    return this.#model.id;
  }

  /** What the registry says of it, see {@link Model.served}; once it is loaded, what computes it. */
  served(ask: unknown, action: string): ServedVersion {
    const { runtime, available = true } = this.#lease?.network ?? {};
    return {
      ...this.#model.served(ask, action),
      ...(runtime ? { engine: runtime } : {}),
      ...(available ? {} : { down: true as const }),
    };
  }

  /** @param watcher told when {@link served} may have changed @returns ends it */
  watch(watcher: () => void): () => void {
    return this.#lease?.network.watch(watcher) ?? (() => {});
  }

  /** Batches computed at once, of so many threads and engines here. */
  concurrency({ threads, instances }: Pick<ServingSettings, "threads" | "instances">): number {
    return this.#model.engineSpec(1).remote?.concurrency ?? Math.min(threads, instances);
  }

  /** The most items that its graph takes at once. */
  get maxBatch(): number {
    return this.#model.manifest.maxBatch;
  }

  /**
   * Resolves when it can be asked.
   *
   * @param beside others serve meanwhile: one engine of one thread tries the model first, and takes nothing from them
   *   but that thread; only what has proved itself so gets all its engines
   * @param onState told when it gets further
   * @throws ManifestError for files that are others, EngineCrashedError, or an Error where a golden example came out
   *   differently
   */
  async load(
    settings: ServingSettings,
    beside = false,
    onState: (state: "warming" | "checking") => void = () => {},
  ): Promise<void> {
    await this.#model.verify();
    const { threads, instances, checkGolden } = settings;
    if (beside && (threads > 1 || instances > 1)) {
      const trial = await this.#leased({ ...settings, threads: 1, instances: 1 }, checkGolden);
      await trial.release();
    }
    onState("warming");
    this.#lease = await this.#leased(settings, checkGolden, () => onState("checking"));
  }

  async #leased(settings: ServingSettings, check: boolean, onChecking = () => {}): Promise<Lease> {
    const { threads, instances, batching, runtime } = settings;
    const { latencyTargetMs, ...bounds } = batching;
    const engineSpec = this.#model.engineSpec(batching.maxBatchSize);
    const { remote } = engineSpec;
    const lease = await leaseNetwork(this.#broker, {
      id: this.id,
      spec: { ...engineSpec, ...(runtime ? { runtime } : {}) },
      threads,
      instances,
      batching: { ...bounds, ...(latencyTargetMs > 0 ? { latencyTargetMs } : {}) },
      collate: (items) => this.#model.collate(items),
      // What is elsewhere need not be there now: it has to prove itself whenever it is.
      ...(remote && check ? { prove: (run) => this.#fault((item) => run(this.#model.collate([item]))) } : {}),
    });
    try {
      onChecking();
      if (check && !remote) await this.#prove(lease);
      return lease;
    } catch (error) {
      await lease.release();
      throw error;
    }
  }

  /**
   * Computes the items of a request, in whichever batches.
   *
   * @param suspect the request may have brought a node down: it gets batches of its own
   * @throws MODEL_UNAVAILABLE if it was prepared for another version; BAD_REQUEST, QUEUE_FULL, DRAINING
   */
  async predict(
    { model, count, tensors }: PredictParams,
    scope: Scope,
    suspect: boolean,
  ): Promise<PredictResult> {
    const lease = this.#lease;
    if (!lease || (model && model.fingerprint !== this.id.fingerprint)) {
      throw new ModelUnavailableError(this.#service);
    }
    const { deadline, signal } = scope;
    const items = this.#model.split(tensors, count);
    const submitted = lease.submit(items, { deadline, signal, alone: suspect });
    const settled = await observeItems(this.#broker, this.#service, count, submitted);
    return {
      model: this.id,
      node: this.#broker.nodeID,
      items: settled.map((item) => this.#settle(item)),
    };
  }

  /** Finishes what it has. */
  async close(): Promise<void> {
    await this.#lease?.release();
  }

  #settle(item: SettledItem<Tensors>): Settled<PredictedItem> {
    if (!item.ok) return { ok: false, error: toWire(item.error) };
    const { value, batchSize, dispatchReason, queueMs, computeMs } = item;
    try {
      const output = this.#model.interpret(value);
      return { ok: true, output, batchSize, dispatchReason, timing: { queueMs, computeMs } };
    } catch (error) {
      const reason = (error as Error).message;
      return { ok: false, error: toWire(new PredictionFailedError(this.#service, reason)) };
    }
  }

  async #prove(lease: Lease): Promise<void> {
    const fault = await this.#fault(async (item) => {
      const [settled] = await lease.submit(this.#model.split(item, 1));
      return settled?.ok ? settled.value : (settled?.error ?? new Error("no answer"));
    });
    if (fault !== undefined) throw new ServingError("PREDICTION_FAILED", fault);
  }

  /** Which golden example comes out differently. @param run computes an item as its kind prepares it */
  async #fault(run: (item: Tensors) => Promise<Tensors | Error>): Promise<string | undefined> {
    for (const [index, example] of this.#model.examples().entries()) {
      const outputs = await run(example.item);
      const wrong = outputs instanceof Error ? outputs.message : difference(example, outputs);
      if (wrong === undefined) continue;
      const { name, version } = this.id;
      return `${name}/${version} does not make of its golden example ${index} what it should: ${wrong}`;
    }
    return undefined;
  }
}
