import { z } from "zod";
import { whole } from "../check.ts";
import { THREADS } from "../engines/cores.ts";
import { env } from "../env.ts";
import { versionPolicy } from "./policy.ts";

/** See `BatcherOptions`. */
export const batchingSettings = z.strictObject({
  maxBatchSize: whole(1).default(env.MAX_BATCH_SIZE),
  maxQueueSize: whole(1).default(env.MAX_QUEUE_SIZE),
  maxQueueDelayMs: z.number().min(0).default(env.MAX_QUEUE_DELAY_MS),
  /** 0: none. */
  latencyTargetMs: z.number().min(0).default(env.LATENCY_TARGET_MS),
});

/** How a new version takes over from an old one. */
const swapSettings = z.strictObject({
  requests: whole(0)
    .default(50)
    .describe("items that a new version answers before the old one is let go; 0: it is at once"),
  maxErrorRate: z
    .number()
    .min(0, "a number from 0 to 1")
    .max(1, "a number from 0 to 1")
    .default(0.1)
    .describe("share of those that may fail; one more, and the new version is taken back"),
  keepWarmMs: whole(0)
    .default(600_000)
    .describe(
      "an old version that nobody has asked for so long is let go, whatever the new one has answered",
    ),
});

/** The settings of every model's service. */
export const modelSettings = z.strictObject({
  model: z
    .string()
    .regex(/^[a-z0-9][a-z0-9_-]*$/, "the name of a folder in modelsDir")
    .describe("folder of the model below modelsDir"),
  question: z.string().regex(/\S/, "a question").describe("in plain words, for people"),
  ask: z
    .unknown()
    .optional()
    .describe("the question as the model's task wants it: of a classifier { group, threshold }"),
  modelsDir: z.string().min(1, "a folder").default(env.MODELS_DIR),
  versionPolicy: versionPolicy
    .default({ latest: 1 })
    .describe("which versions of the model are served: the newest so many, all, or certain ones"),
  pollMs: whole(0)
    .default(env.MODELS_POLL_MS)
    .describe("how often new versions are looked for, give or take a tenth; 0: only on demand"),
  swap: swapSettings.prefault({}),
  threads: whole(1).default(THREADS).describe("of a batch that is alone"),
  instances: whole(1)
    .default(env.ENGINE_INSTANCES)
    .describe("engines: as many batches are computed at once, and the weights are so often in memory"),
  runtime: z.string().default("").describe('runtime that loads it; "": the one that its manifest names'),
  checkGolden: z
    .boolean()
    .default(true)
    .describe("whether the golden examples must come out right before it serves"),
  batching: batchingSettings
    .refine(
      ({ maxBatchSize, maxQueueSize }) => maxQueueSize >= maxBatchSize,
      "a maxQueueSize of at least maxBatchSize",
    )
    .prefault({}),
});

/** The settings of a service that asks a classifier for yes or no. */
export const classifierSettings = modelSettings.omit({ ask: true }).extend({
  group: z.string().min(1, "a group of the manifest").describe("the labels that mean yes"),
  threshold: z
    .number()
    .min(0, "a number from 0 to 1")
    .max(1, "a number from 0 to 1")
    .default(0.5)
    .describe("yes from this probability on"),
});
