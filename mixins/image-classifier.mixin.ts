import { resolve } from "node:path";
import type { Context } from "moleculer";
import { defineMixin } from "../lib/define.ts";
import { THREADS } from "../lib/engines/cores.ts";
import type { Lease } from "../lib/engines/leases.ts";
import { leaseNetwork } from "../lib/engines/node.ts";
import { env } from "../lib/env.ts";
import { ModelUnavailableError } from "../lib/errors.ts";
import { ImageModel } from "../lib/kinds/image/model.ts";
import { latestVersion } from "../lib/models/manifest.ts";
import {
  CANCEL_EVENT,
  type CancelEvent,
  Cancellations,
  type CancelMeta,
} from "../lib/request/cancellation.ts";
import { deadlineOf } from "../lib/request/deadline.ts";
import { gauge } from "../lib/telemetry/metrics.ts";
import { observeItems } from "../lib/telemetry/observe.ts";
import type { ModelMetadata, PredictParams, PredictResult } from "../lib/types.ts";

interface Vars {
  model: ImageModel;
  lease: Lease | undefined;
  cancellations: Cancellations;
}

/**
 * A yes/no question put to an image classifier. The whole of a service:
 *
 *     export default defineService()({
 *       name: "resnet-cat",
 *       mixins: [ImageClassifier],
 *       settings: { model: "pets-resnet", group: "cat", question: "Is it a cat?" },
 *     });
 *
 * The service starts once its model is loaded and warm, and only then do others see it.
 */
export const ImageClassifier = defineMixin<Vars>()({
  settings: {
    /** Folder of the model below `modelsDir`. */
    model: "",
    /** Key of the manifest's `groups`: the labels that mean yes. */
    group: "",
    /** The question in plain words, for people. */
    question: "",
    /** Yes from this probability on, 0–1. */
    threshold: 0.5,
    modelsDir: env.MODELS_DIR,
    /** Threads of a batch that is alone. */
    threads: THREADS,
    /** Engines: as many batches of it are computed at once, and the weights are so often in memory. */
    instances: env.ENGINE_INSTANCES,
    /** See `BatcherOptions`. */
    batching: {
      maxBatchSize: env.MAX_BATCH_SIZE,
      maxQueueSize: env.MAX_QUEUE_SIZE,
      maxQueueDelayMs: env.MAX_QUEUE_DELAY_MS,
      latencyTargetMs: env.LATENCY_TARGET_MS,
    },
  },

  created() {
    const { model, modelsDir, group, threshold, question, batching, threads, instances } = this.settings;
    this.cancellations = new Cancellations();
    this.model = new ImageModel(latestVersion(resolve(modelsDir, model)), { group, threshold });
    const metadata: ModelMetadata = {
      kind: "model",
      question,
      ...this.model.description,
      batching: { ...batching, concurrency: Math.min(instances, threads) },
    };
    Object.assign(this.metadata, metadata);
  },

  async started() {
    await this.model.verify();
    const { threads, instances, batching } = this.settings;
    const { latencyTargetMs, ...bounds } = batching;
    this.lease = await leaseNetwork(this.broker, {
      id: this.model.id,
      spec: this.model.engineSpec(batching.maxBatchSize),
      threads,
      instances,
      batching: { ...bounds, ...(latencyTargetMs > 0 ? { latencyTargetMs } : {}) },
    });
    const { name, version } = this.model.id;
    gauge(this.broker, "inference.model.version", version, { model: this.name, name });
    this.logger.info("Model is warm", { name, version });
  },

  async stopped() {
    await this.lease?.release();
  },

  events: {
    [CANCEL_EVENT](ctx: Context<CancelEvent>) {
      this.cancellations.abort(ctx.params.cancelId);
    },
  },

  actions: {
    predict: {
      params: {
        count: { type: "number", integer: true, positive: true },
        pixels: { type: "any" },
      },
      async handler(
        ctx: Context<PredictParams, CancelMeta & { $suspect?: boolean }>,
      ): Promise<PredictResult> {
        const { lease } = this;
        if (!lease) throw new ModelUnavailableError(this.name);
        const items = this.model.split(ctx.params);
        const options = { deadline: deadlineOf(ctx), alone: ctx.meta.$suspect === true };
        const answers = await this.cancellations.track(ctx.meta.cancelId, (signal) =>
          observeItems(this.broker, this.name, items.length, lease.submit(items, { ...options, signal })),
        );
        return {
          model: this.model.description.model,
          node: this.broker.nodeID,
          items: this.model.settle(answers),
        };
      },
    },
  },
});
