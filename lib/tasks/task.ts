import type { z } from "zod";
import type { TensorSpec, Tensors } from "../engines/tensors.ts";
import type { Inspection } from "../kinds/kind.ts";

/**
 * What a model's outputs mean: classification, ranking, plain tensors. One module for each task.
 *
 * `interpret` runs in the model's service, `answer` in the dispatcher, which keeps outputs in the cache: all questions
 * to one network about one input are answered from one output.
 *
 * @template Part the task's part of a manifest, `name` included
 * @template Spec what of it a dispatcher needs to answer, published in the service's metadata
 * @template Ask what a service asks of the network, as its settings say it
 * @template Question the same as it is published: a group of labels, a threshold
 * @template Output what the network says of one item, without any question; plain data, as small as it can be
 * @template Answer what the client reads
 */
export interface Task<
  Part = unknown,
  Spec = unknown,
  Ask = unknown,
  Question = unknown,
  Output = unknown,
  Answer extends object = object,
> {
  readonly name: string;
  /** Whether outputs may be kept for who asks the same again; absent: they may. */
  readonly kept?: false;
  /** The manifest's part: type, checks and JSON Schema of it. */
  readonly part: z.ZodType<Part>;
  /** How a part that is right by itself contradicts the model's outputs; one sentence each. */
  contradictions(part: Part, outputs: readonly TensorSpec[]): string[];
  /** The outputs of the graph that are needed. */
  needs(part: Part, outputs: readonly TensorSpec[]): readonly TensorSpec[];
  spec(part: Part): Spec;
  /** What a service may ask: its setting `ask`. */
  readonly ask: z.ZodType<Ask>;
  /** @throws Error if this model cannot be asked that */
  question(ask: Ask, part: Part): Question;
  /**
   * The output of the item at `index` of a batch.
   *
   * @param outputs batch first, as the engine gave them
   * @throws Error if a number is not finite: that is no answer
   */
  interpret(outputs: Tensors, index: number, part: Part): Output;
  /**
   * Cheap, and never cached. Its numbers are rounded to what they are worth.
   *
   * @param info of the input: what its client wants of the answer, where the kind takes such wishes
   */
  answer(output: Output, question: Question, spec: Spec, info?: Inspection): Answer;
}
