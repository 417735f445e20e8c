import { resolve } from "node:path";
import type { Context } from "moleculer";
import type { SettledItem } from "../lib/batching/batcher.ts";
import { defineMixin } from "../lib/define.ts";
import { EnginePool } from "../lib/engines/pool.ts";
import { env } from "../lib/env.ts";
import { ImageModel } from "../lib/kinds/image/model.ts";
import { wholeCores } from "../lib/load/cgroup.ts";
import { latestVersion } from "../lib/models/manifest.ts";
import type { Classification } from "../lib/tasks/classification.ts";
import { count, gauge } from "../lib/telemetry/metrics.ts";
import type { ModelMetadata, PredictParams, PredictResult } from "../lib/types.ts";
import { Batching } from "./batching.mixin.ts";

interface Vars {
  model: ImageModel;
  engine: EnginePool;
  /** From the batching mixin. */
  submit(ctx: Context, inputs: readonly Uint8Array[]): Promise<SettledItem<Classification>[]>;
}

const THREADS = env.ENGINE_THREADS || wholeCores();

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
  mixins: [Batching],

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
    /** Threads of its engines together. */
    threads: THREADS,
    /** As many batches at once, each with an engine. */
    batching: { concurrency: Math.min(env.ENGINE_INSTANCES, THREADS) },
  },

  created() {
    const { model, modelsDir, group, threshold, question, batching } = this.settings;
    this.model = new ImageModel(latestVersion(resolve(modelsDir, model)), { group, threshold });
    const metadata: ModelMetadata = {
      kind: "model",
      question,
      ...this.model.description,
      batching: batching as ModelMetadata["batching"],
    };
    Object.assign(this.metadata, metadata);
  },

  async started() {
    await this.model.verify();
    const { threads, batching } = this.settings;
    this.engine = new EnginePool({
      name: this.name,
      spec: (threads) => this.model.engineSpec(threads),
      threads,
      instances: batching.concurrency,
      onRestart: (reason) => {
        count(this.broker, "engine.restarts.total", { model: this.name });
        this.logger.warn("Engine restarted", { reason });
      },
    });
    await this.engine.load();
    const { name, version } = this.model.description.model;
    gauge(this.broker, "inference.model.version", version, { model: this.name, name });
    this.logger.info("Model is warm", { name, version, threads, instances: batching.concurrency });
  },

  async stopped() {
    await this.engine?.dispose();
  },

  actions: {
    predict: {
      params: {
        count: { type: "number", integer: true, positive: true },
        pixels: { type: "any" },
      },
      async handler(ctx: Context<PredictParams>): Promise<PredictResult> {
        const answers = await this.submit(ctx, this.model.split(ctx.params));
        return {
          model: this.model.description.model,
          node: this.broker.nodeID,
          items: this.model.settle(answers),
        };
      },
    },
  },

  methods: {
    async runBatch(inputs: readonly Uint8Array[]): Promise<Classification[]> {
      return this.model.answers(await this.engine.run(this.model.join(inputs), inputs.length), inputs.length);
    },
  },
});
