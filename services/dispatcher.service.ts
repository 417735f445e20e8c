import type { Context } from "moleculer";
import { defineService } from "../lib/define.ts";
import { callModel } from "../lib/dispatch/call-model.ts";
import { type Computed, Dispatcher } from "../lib/dispatch/dispatcher.ts";
import { createStore, OutputCache } from "../lib/dispatch/output-cache.ts";
import { dispatcherSettings } from "../lib/dispatch/settings.ts";
import { env } from "../lib/env.ts";
import { Preparers } from "../lib/kinds/preparers.ts";
import { kindOf } from "../lib/kinds/registry.ts";
import { Admin, adminActions } from "../lib/models/admin.ts";
import { catalogOf } from "../lib/models/catalog.ts";
import { cancelEvents } from "../lib/request/cancellation.ts";
import { Retry } from "../lib/request/retry.ts";
import { scopeOf } from "../lib/request/scope.ts";
import { healthOf } from "../lib/telemetry/health.ts";
import { count, observe } from "../lib/telemetry/metrics.ts";
import type { AskParams, AskResult } from "../lib/types.ts";

interface Vars {
  dispatcher: Dispatcher;
  preparers: Preparers;
  cache: OutputCache<Computed> | undefined;
  admin: Admin;
  forget?: () => void;
}

/** Takes inputs as they came in, prepares each once, asks every network once and gathers what the models say. */
export default defineService<Vars>()({
  name: "dispatcher",
  deploy: { role: "dispatcher" },

  settingsSchema: dispatcherSettings,
  settings: {
    maxImageBytes: env.MAX_IMAGE_BYTES,
    maxInputBytes: env.MAX_INPUT_BYTES,
    maxVideoBytes: env.MAX_VIDEO_BYTES,
    maxPixels: env.MAX_IMAGE_PIXELS,
    concurrency: env.DECODE_CONCURRENCY,
    maxInFlight: env.MAX_MODEL_IN_FLIGHT,
    cache: { ttlMs: env.CACHE_TTL_MS, maxEntries: env.CACHE_MAX_ENTRIES },
  },

  created() {
    const { broker, logger } = this;
    const { cache, concurrency, maxInFlight, maxPixels } = this.settings;
    this.preparers = new Preparers((kind) => ({
      maxBytes: this.settings[kindOf(kind).limit],
      maxPixels,
      // The bound is the one by model: what may be open to one, and as much to others, may wait for its decode.
      maxWaiting: 2 * maxInFlight,
      ...(concurrency > 0 ? { concurrency } : {}),
      onDeath: (reason) => {
        count(broker, "decoder.deaths.total", { reason });
        logger.warn("A decoder ended under an input", { kind, reason });
      },
    }));
    this.cache =
      cache.ttlMs > 0
        ? new OutputCache<Computed>(
            createStore({ ...cache, url: env.REDIS_URL, namespace: env.NAMESPACE, logger }),
            (result) => count(broker, "cache.requests.total", { result }),
          )
        : undefined;
    this.dispatcher = new Dispatcher({
      nodeID: broker.nodeID,
      preparer: (kind) => this.preparers.get(kind),
      models: catalogOf(broker),
      retry: new Retry(),
      onRetry: (model) => count(broker, "retry.attempts.total", { action: `${model}.predict` }),
      maxInFlight,
      ...(this.cache ? { cache: this.cache } : {}),
      onDecode: (seconds) => observe(broker, "dispatcher.decode.seconds", seconds),
      onRefusal: (model, outcome) => count(broker, "inference.requests.total", { model, outcome }),
      onFault: (error, about) => logger.error("A request failed", about, error),
    });
    this.admin = new Admin(broker, logger);
  },

  events: cancelEvents,

  /** Ready only with a decoder of every kind; they start beside the models. */
  async started() {
    this.admin.start();
    await this.preparers.start();
    this.forget = healthOf(this.broker).require({
      name: "decoder",
      probe: "ready",
      met: () => this.preparers.ready,
    });
  },

  async stopped() {
    this.forget?.();
    this.admin.stop();
    await Promise.all([this.cache?.close(), this.preparers.close()]);
  },

  actions: {
    ...adminActions(),
    ask: {
      params: {
        kind: "string",
        inputs: { type: "array", min: 1 },
        models: { type: "array", items: "string", min: 1, optional: true },
        noStore: { type: "boolean", optional: true },
        version: { type: "string", max: 40, optional: true },
        key: { type: "string", max: 256, optional: true },
      },
      handler(ctx: Context<AskParams>): Promise<AskResult> {
        return this.dispatcher.ask(ctx.params, scopeOf(ctx), (action, params, scope) =>
          callModel(ctx, action, params, scope),
        );
      },
    },
  },
});
