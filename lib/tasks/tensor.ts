import { z } from "zod";
import { itemAt, type Tensor, type Tensors } from "../engines/tensors.ts";
import type { Task } from "./task.ts";

export const tensorTaskPart = z.strictObject({ name: z.literal("tensor") });

/** Nested as the output's shape says. */
export type Nested = number | string | readonly Nested[];

export interface TensorAnswer {
  /** By the names of the graph's outputs. */
  readonly outputs: Readonly<Record<string, Nested>>;
}

/** Digits that a float32 holds. */
const DIGITS = 7;

/** Outputs as they are, for models whose numbers speak for themselves. */
export const tensorTask: Task<
  Readonly<z.infer<typeof tensorTaskPart>>,
  object,
  undefined,
  null,
  Tensors,
  TensorAnswer
> = {
  name: "tensor",
  part: tensorTaskPart,
  contradictions: () => [],
  needs: (_, outputs) => outputs,
  spec: () => ({}),
  ask: z.undefined("nothing"),
  question: () => null,

  interpret(outputs, index) {
    const item = itemAt(outputs, index);
    // Copies: the batch's memory is not the item's to keep.
    return Object.fromEntries(
      Object.entries(item).map(([name, tensor]) => [
        name,
        { ...tensor, data: tensor.data.slice() } as Tensor,
      ]),
    );
  },

  answer(output) {
    const outputs = Object.entries(output).map(([name, { shape, data }]) => {
      return [name, nested(Array.from<unknown, number | string>(data, shown), shape.slice(1))] as const;
    });
    return { outputs: Object.fromEntries(outputs) };
  },
};

/** A whole number that JSON's numbers cannot hold is a text. */
function shown(element: unknown): number | string {
  if (typeof element === "string") return element;
  if (typeof element === "bigint") {
    return Number.isSafeInteger(Number(element)) ? Number(element) : String(element);
  }
  return Number((element as number).toPrecision(DIGITS));
}

function nested(elements: readonly Nested[], [length, ...inner]: readonly number[]): Nested {
  if (length === undefined) return elements[0] ?? "";
  const size = elements.length / Math.max(1, length);
  return Array.from({ length }, (_, i) => nested(elements.slice(i * size, (i + 1) * size), inner));
}
