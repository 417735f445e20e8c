import type { Context } from "moleculer";
import { defineService } from "../lib/define.ts";
import { AnswerCache, createStore } from "../lib/dispatch/answer-cache.ts";
import { Dispatcher } from "../lib/dispatch/dispatcher.ts";
import { oneAnswer } from "../lib/dispatch/predict.ts";
import { env } from "../lib/env.ts";
import { ImagePipeline } from "../lib/kinds/image/pipeline.ts";
import { listModels } from "../lib/models/catalog.ts";
import {
  CANCEL_EVENT,
  type CancelEvent,
  Cancellations,
  type CancelMeta,
} from "../lib/request/cancellation.ts";
import { deadlineOf } from "../lib/request/deadline.ts";
import { Retry } from "../lib/request/retry.ts";
import { count, observe } from "../lib/telemetry/metrics.ts";
import type {
  ClassifyParams,
  ClassifyResult,
  ModelAnswer,
  PredictParams,
  PredictResult,
} from "../lib/types.ts";

interface Vars {
  dispatcher: Dispatcher;
  cancellations: Cancellations;
  cache: AnswerCache | undefined;
  pipeline: ImagePipeline;
  retry: Retry;
  predict(ctx: Context, action: string, params: PredictParams): Promise<ModelAnswer>;
}

/** Takes encoded images, prepares each once, asks every model at the same time and gathers what they say. */
export default defineService<Vars>()({
  name: "dispatcher",

  settings: {
    maxBytes: env.MAX_IMAGE_BYTES,
    maxPixels: env.MAX_IMAGE_PIXELS,
    concurrency: env.DECODE_CONCURRENCY,
    maxInFlight: env.MAX_MODEL_IN_FLIGHT,
    cache: { ttlMs: env.CACHE_TTL_MS, maxEntries: env.CACHE_MAX_ENTRIES },
  },

  created() {
    const { cache, concurrency, maxInFlight, ...limits } = this.settings;
    this.cancellations = new Cancellations();
    this.retry = new Retry();
    this.cache =
      cache.ttlMs > 0
        ? new AnswerCache(
            createStore({ ...cache, url: env.REDIS_URL, namespace: env.NAMESPACE, logger: this.logger }),
            (result) => count(this.broker, "cache.requests.total", { result }),
          )
        : undefined;
    this.pipeline = new ImagePipeline({
      ...limits,
      // The bound is the one by model: what may be open to one, and as much to others, may wait for its decode.
      maxWaiting: 2 * maxInFlight,
      ...(concurrency > 0 ? { concurrency } : {}),
    });
    this.dispatcher = new Dispatcher({
      pipeline: this.pipeline,
      models: () => listModels(this.broker),
      maxInFlight,
      ...(this.cache ? { cache: this.cache } : {}),
      onDecode: (seconds) => observe(this.broker, "dispatcher.decode.seconds", seconds),
    });
  },

  events: {
    [CANCEL_EVENT](ctx: Context<CancelEvent>) {
      this.cancellations.abort(ctx.params.cancelId);
    },
  },

  /** Ready only with a decoder; they start beside the models. */
  started() {
    return this.pipeline.start();
  },

  async stopped() {
    this.pipeline.close();
    await this.cache?.close();
  },

  actions: {
    classify: {
      params: {
        images: { type: "array", min: 1 },
        models: { type: "array", items: "string", min: 1, optional: true },
        noStore: { type: "boolean", optional: true },
      },
      handler(ctx: Context<ClassifyParams, CancelMeta>): Promise<ClassifyResult> {
        const deadline = deadlineOf(ctx);
        return this.cancellations.track(ctx.meta.cancelId, (signal) =>
          this.dispatcher.classify({
            ...ctx.params,
            ...(deadline === undefined ? {} : { deadline }),
            ...(signal ? { signal } : {}),
            predict: (model, params) => this.predict(ctx, `${model}.predict`, params),
          }),
        );
      },
    },
  },

  methods: {
    predict(ctx: Context, action: string, params: PredictParams): Promise<ModelAnswer> {
      return this.retry.run(
        async () => oneAnswer(await ctx.call<PredictResult, PredictParams>(action, params)),
        () => count(this.broker, "retry.attempts.total", { action }),
      );
    },
  },
});
