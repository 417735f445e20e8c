import type { Tensors } from "../engines/tensors.ts";

/**
 * What a model's outputs mean: classification, ranking, plain tensors. One module for each task.
 *
 * `interpret` runs in the model's service, `answer` in the dispatcher, which keeps outputs in the cache: all questions
 * to one network about one input are answered from one output.
 *
 * @template Spec the task's part of the manifest
 * @template Question what a service asks of the network: a group of labels, a threshold. Published in its metadata
 * @template Output what the network says of one item, without any question; plain data, as small as it can be
 * @template Answer what the client reads
 */
export interface Task<Spec = unknown, Question = unknown, Output = unknown, Answer extends object = object> {
  readonly name: string;
  /**
   * The output of the item at `index` of a batch.
   *
   * @param outputs batch first, as the engine gave them
   * @throws PredictionFailedError if a number is not finite
   */
  interpret(outputs: Tensors, index: number, spec: Spec): Output;
  /** Cheap, and never cached. */
  answer(output: Output, question: Question, spec: Spec): Answer;
}
