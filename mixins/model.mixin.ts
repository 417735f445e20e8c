import type { Context } from "moleculer";
import { defineMixin } from "../lib/define.ts";
import { ModelService } from "../lib/models/model-service.ts";
import { modelSettings } from "../lib/models/settings.ts";
import { cancelEvents } from "../lib/request/cancellation.ts";
import { scopeOf } from "../lib/request/scope.ts";
import type { PredictParams, PredictResult } from "../lib/types.ts";

interface Vars {
  served: ModelService;
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
 * The service starts once a version of its model is loaded, warm and right about its golden examples; only then do
 * others see it. New versions take over while it serves. Each version has an action of its own besides
 * `<service>.predict`: what waits for one version in a queue that all replicas share is never computed by another.
 */
export const Model = defineMixin<Vars>()({
  deploy: { role: "model" },

  settings: modelSettings,

  created() {
    const { broker, logger, name, settings, metadata } = this;
    this.served = new ModelService({
      broker,
      logger,
      name,
      settings,
      metadata,
      ask: this.ask(),
      action: { params, handler: (ctx) => this.predict(ctx) },
    });
  },

  async started() {
    await this.served.start();
  },

  async stopped() {
    await this.served.stop();
  },

  events: cancelEvents,

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
