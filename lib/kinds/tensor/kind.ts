import { z } from "zod";
import { stack } from "../../engines/tensors.ts";
import type { Kind } from "../kind.ts";
import { type TensorInfo, type TensorInput, tensorBody } from "./input.ts";

export const tensorPart = z.strictObject({ name: z.literal("tensor") });

/** The tensor part of a manifest: a model of this kind takes its inputs as they are. */
export type TensorPart = Readonly<z.infer<typeof tensorPart>>;

/** Inputs of a model, and dimensions of one. */
const MAX_INPUTS = 64;
const MAX_DIMENSIONS = 16;

/** Plain tensors in JSON, for models that need nothing made of them. */
export const tensor: Kind<TensorPart, TensorInput, TensorInfo> = {
  name: "tensor",
  accepts: ["application/json"],
  schema: z.toJSONSchema(tensorBody),
  noun: "input",
  limit: "maxInputBytes",
  part: tensorPart,
  // What is made of them is no larger than the client's JSON.
  wanted: z.looseObject({
    inputs: z
      .array(
        z.looseObject({
          name: z.string().max(256),
          dtype: z.enum(["uint8", "int32", "int64", "float32", "string"]),
          shape: z.array(z.int().min(0).nullable()).max(MAX_DIMENSIONS),
        }),
      )
      .max(MAX_INPUTS),
  }),
  contradictions: () => [],
  wants: (_, inputs) => ({ type: "tensor", inputs }),
  prepared: (_, inputs) => inputs,
  collate: (items) => stack(items),

  async open(options) {
    const { TensorPreparer } = await import("./preparer.ts");
    return new TensorPreparer(options);
  },
};
