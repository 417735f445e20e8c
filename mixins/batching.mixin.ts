import type { Context } from "moleculer";
import { z } from "zod";
import { Batcher } from "../lib/batching/batcher.ts";
import type { SettledItem } from "../lib/batching/options.ts";
import { FixedSlots } from "../lib/batching/slots.ts";
import { whole } from "../lib/check.ts";
import { defineMixin } from "../lib/define.ts";
import { loadOf } from "../lib/load/load.ts";
import { batchingSettings } from "../lib/models/settings.ts";
import { cancelEvents } from "../lib/request/cancellation.ts";
import { scopeOf } from "../lib/request/scope.ts";
import { BatchObserver, observeItems } from "../lib/telemetry/observe.ts";

interface Vars {
  batcher: Batcher<unknown, unknown>;
  /** What the service that mixes this in provides: one output, or an Error, for each input, in order. */
  runBatch(inputs: readonly unknown[]): Promise<readonly unknown[]>;
}

/**
 * Collects the items of many callers into batches. A service that mixes it in has a method `runBatch(inputs)` and
 * calls `this.submit(ctx, inputs)` from its actions.
 */
export const Batching = defineMixin<Vars>()({
  deploy: { role: "model" },

  settings: z.looseObject({
    batching: batchingSettings.extend({ concurrency: whole(1).default(1) }).prefault({}),
  }),

  created() {
    const { latencyTargetMs, concurrency, ...bounds } = this.settings.batching;
    const batches = new BatchObserver(this.broker, { network: this.name, version: "" }, this.logger);
    this.batcher = new Batcher({
      ...bounds,
      ...(latencyTargetMs > 0 ? { latencyTargetMs } : {}),
      name: this.name,
      run: (inputs) => this.runBatch(inputs),
      slots: new FixedSlots(concurrency),
      onBatch: (report) => batches.observe(report),
    });
    loadOf(this.broker).registerQueue(this.name, () => this.batcher.stats);
  },

  events: cancelEvents,

  async stopped() {
    await this.batcher.drain();
  },

  methods: {
    /** Puts items in the queue; one settled answer for each, in order. Throws only when the queue is full. */
    submit(
      ctx: Context<unknown, { $suspect?: boolean }>,
      inputs: readonly unknown[],
    ): Promise<SettledItem<unknown>[]> {
      const { deadline, signal } = scopeOf(ctx);
      const answers = this.batcher.submit(inputs, { deadline, signal, alone: ctx.meta.$suspect === true });
      return observeItems(this.broker, this.name, inputs.length, answers);
    },
  },
});
