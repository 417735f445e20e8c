import { z } from "zod";

const whole = z.int("a whole number of at least 1").min(1, "a whole number of at least 1");

/** The remote part of a manifest: where else the model is computed, and how it is asked there. */
export const remotePart = z.strictObject({
  protocol: z
    .enum(["open-inference", "tensorflow-serving"])
    .describe(
      "Open Inference Protocol v2 (Triton, MLServer, KServe, OpenVINO …), or TensorFlow Serving's REST",
    ),
  url: z
    .string()
    .regex(/^https?:\/\/[^/?#@\s]+(\/[^?#\s]*)?$/, "an http:// or https:// address without user and password")
    .optional()
    .describe("of the server; REMOTE_ENGINES has another for this model, which may hold a password"),
  model: z
    .string()
    .regex(/^[\w.-]+$/, "a name")
    .describe("name of the model there"),
  version: z
    .string()
    .regex(/^[\w.-]+$/, "a version")
    .optional()
    .describe("there; absent: what it serves by default"),
  binary: z
    .boolean()
    .optional()
    .describe(
      "tensors as bytes behind the JSON, for the Open Inference Protocol's servers that can, as Triton [false]",
    ),
  concurrency: whole.optional().describe("batches asked at once [4]"),
  timeoutMs: whole.optional().describe("longest time for an answer [10000]"),
  maxResponseBytes: whole.optional().describe("largest answer that is read [67108864]"),
});

export type RemotePart = Readonly<z.infer<typeof remotePart>>;

const DEFAULTS = { binary: false, concurrency: 4, timeoutMs: 10_000, maxResponseBytes: 64 << 20 };

/** The part with what it leaves out. */
export type Remote = RemotePart & typeof DEFAULTS;

export function remoteOf(part: RemotePart): Remote {
  // A key that is there without a value is none.
  return { ...DEFAULTS, ...(JSON.parse(JSON.stringify(part)) as RemotePart) } as Remote;
}
