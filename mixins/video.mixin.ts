import type { Context } from "moleculer";
import { z } from "zod";
import { whole } from "../lib/check.ts";
import { defineMixin } from "../lib/define.ts";
import { ClipAsker } from "../lib/kinds/video/asker.ts";
import { cancelEvents } from "../lib/request/cancellation.ts";
import { scopeOf } from "../lib/request/scope.ts";
import type { PredictParams, PredictResult } from "../lib/types.ts";

interface Vars {
  asker: ClipAsker;
}

const positive = z.number("a number above 0").positive("a number above 0");

const settings = z.strictObject({
  question: z.string().regex(/\S/, "a question").describe("in plain words, for people"),
  models: z
    .array(z.string())
    .min(1)
    .optional()
    .describe("who is asked about the frames; absent: all image models"),
  everySeconds: positive.default(1).describe("between two frames that are looked at"),
  maxSeconds: positive.max(3600, "at most 3600").default(60).describe("of the longest clip"),
  maxPixels: whole(1)
    .default(4096 * 2304)
    .describe("of a frame"),
  maxMemoryMiB: whole(1).default(768).describe("of the program that decodes"),
  maxCpuSeconds: positive.default(20).describe("of the program that decodes"),
  concurrency: whole(1).default(1).describe("clips decoded at once; the program has one thread"),
  maxWaiting: whole(0).default(8).describe("clips that may wait; the next is refused with QUEUE_FULL"),
});

export type VideoSettings = z.output<typeof settings>;

/** Parameters of `predict` as Moleculer checks them; the clip is checked by the asker. */
const params = {
  model: { type: "object", optional: true, props: { fingerprint: "string" } },
  count: { type: "number", equal: 1 },
  tensors: { type: "object" },
};

/**
 * Answers about clips by asking the image models about their frames. The whole of a service:
 *
 *     export default defineService()({
 *       name: "video",
 *       mixins: [Video],
 *       settings: { question: "What is in this clip, and when?" },
 *     });
 *
 * It is found, listed and asked as models are; what it needs of the machine is FFmpeg.
 */
export const Video = defineMixin<Vars>()({
  deploy: { role: "model" },

  settings,

  created() {
    this.asker = new ClipAsker(this.broker, this.name, this.settings);
    Object.assign(this.metadata, this.asker.metadata);
  },

  async started() {
    await this.asker.look();
  },

  events: cancelEvents,

  actions: {
    predict: {
      params,
      handler(ctx: Context<PredictParams>): Promise<PredictResult> {
        return this.asker.predict(ctx, scopeOf(ctx));
      },
    },
  },
});
