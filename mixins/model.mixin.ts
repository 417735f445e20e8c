import type { Context, Service } from "moleculer";
import { defineMixin } from "../lib/define.ts";
import { routeOf } from "../lib/models/identity.ts";
import { newestVersion } from "../lib/models/model.ts";
import { ServedModel } from "../lib/models/served.ts";
import { modelSettings } from "../lib/models/settings.ts";
import { CANCEL_EVENT, type CancelEvent, cancellationsOf } from "../lib/request/cancellation.ts";
import { scopeOf } from "../lib/request/scope.ts";
import { gauge } from "../lib/telemetry/metrics.ts";
import type { ModelMetadata, PredictParams, PredictResult } from "../lib/types.ts";

interface Vars {
  served: ServedModel;
  /** The service of the version's own route. */
  route: Service | undefined;
  /** What the service asks of its model, as the model's task wants it. */
  ask(): unknown;
  predict(ctx: Context<PredictParams>): Promise<PredictResult>;
}

/** Parameters of `predict` as Moleculer checks them; the tensors are checked by the model. */
const params = {
  model: { type: "object", optional: true, props: { fingerprint: "string" } },
  count: { type: "number", integer: true, positive: true },
  tensors: { type: "object" },
};

/**
 * A model of any kind that answers one question. The whole of a service:
 *
 *     export default defineService()({
 *       name: "sentiment",
 *       mixins: [Model],
 *       settings: { model: "sentiment", ask: { group: "positive", threshold: 0.5 }, question: "Is it praise?" },
 *     });
 *
 * The service starts once its model is loaded, warm and right about its golden examples; only then do others see it.
 * Each version has an action of its own besides `<service>.predict`: what waits for one version in a queue that all
 * replicas share is never computed by another.
 */
export const Model = defineMixin<Vars>()({
  deploy: { role: "model" },

  settings: modelSettings,

  created() {
    const { model, modelsDir, runtime, question, batching, threads, instances } = this.settings;
    const version = newestVersion(modelsDir, model, runtime);
    const action = `${routeOf(version.id)}.${this.name}.predict`;
    this.served = new ServedModel(this.broker, this.name, version);
    const metadata: ModelMetadata = {
      kind: "model",
      question,
      versions: [version.served(this.ask(), action)],
      // Not the settings' own object: what stands twice in a packet arrives once.
      batching: {
        maxBatchSize: Math.min(batching.maxBatchSize, version.manifest.maxBatch),
        maxQueueSize: batching.maxQueueSize,
        maxQueueDelayMs: batching.maxQueueDelayMs,
        concurrency: Math.min(instances, threads),
      },
    };
    Object.assign(this.metadata, metadata);
  },

  async started() {
    await this.served.load(this.settings);
    const { name, version, fingerprint } = this.served.id;
    const handler = (ctx: Context<PredictParams>) => this.predict(ctx);
    this.route = this.broker.createService({
      name: this.name,
      version: routeOf(this.served.id),
      actions: { predict: { params, handler } },
    });
    gauge(this.broker, "inference.model.version", version, { model: this.name, name });
    this.logger.info("Model is ready", { name, version, fingerprint });
  },

  async stopped() {
    // With the whole broker the route stops by itself.
    if (this.route && !this.broker.stopping) await this.broker.destroyService(this.route);
    await this.served.close();
  },

  events: {
    [CANCEL_EVENT](ctx: Context<CancelEvent>) {
      cancellationsOf(this.broker).abort(ctx.params.cancelId);
    },
  },

  actions: {
    predict: {
      params,
      handler(ctx: Context<PredictParams>): Promise<PredictResult> {
        return this.predict(ctx);
      },
    },
  },

  methods: {
    ask(): unknown {
      return this.settings.ask;
    },
    predict(ctx: Context<PredictParams, { $suspect?: boolean }>): Promise<PredictResult> {
      return this.served.predict(ctx.params, scopeOf(ctx), ctx.meta.$suspect === true);
    },
  },
});
