import { z } from "zod";
import type { TensorSpec } from "../../engines/tensors.ts";
import type { InputSpec, Inspection } from "../kind.ts";

/** What a model of this kind wants: its tensors by name. */
export interface TensorInput extends InputSpec {
  readonly type: "tensor";
  readonly inputs: readonly TensorSpec[];
}

/** What is known of tensors before they are read. */
export interface TensorInfo extends Inspection {
  /** Of the JSON. */
  readonly bytes: number;
}

/** A body in `application/json`. */
export const tensorBody = z.strictObject({
  inputs: z
    .record(z.string(), z.unknown())
    .describe("by name: a number or text, or lists of them, nested as the input's shape says"),
});
