import { resolve } from "node:path";
import type { SettledItem } from "../../batching/options.ts";
import type { EngineSpec } from "../../engines/engine.ts";
import type { Tensors } from "../../engines/tensors.ts";
import { ServingError, toWire } from "../../errors.ts";
import type { ModelId } from "../../models/identity.ts";
import { identityOf, type Manifest, readManifest, verifyFiles } from "../../models/manifest.ts";
import {
  type Classification,
  type ClassificationQuestion,
  classification,
} from "../../tasks/classification.ts";
import type { ItemReport, ModelMetadata, PredictParams, Settled } from "../../types.ts";
import { type ImageInput, image } from "./kind.ts";

/** One version of an image classifier on disk, asked one question: everything about it but the engine. */
export class ImageModel {
  readonly #dir: string;
  readonly #manifest: Manifest;
  readonly #input: ImageInput;
  readonly #question: ClassificationQuestion;
  readonly #itemBytes: number;

  /**
   * @param dir a version's folder, with `manifest.json`
   * @throws if the manifest is wrong or has no such group
   */
  constructor(dir: string, { group, threshold }: { readonly group: string; readonly threshold: number }) {
    this.#dir = dir;
    this.#manifest = readManifest(dir);
    const { task, kind, inputs } = this.#manifest;
    this.#question = classification.question({ group, threshold }, task);
    this.#input = image.wants(kind, inputs);
    this.#itemBytes = this.#input.width * this.#input.height * 3;
  }

  /** What the registry says of it. */
  get description(): Pick<ModelMetadata, "model" | "labels"> & { readonly input: ImageInput } {
    const { name, version, task } = this.#manifest;
    return { model: { name, version }, input: this.#input, labels: task.labels };
  }

  /** Reads the files once and compares their digests. */
  verify(): Promise<void> {
    return verifyFiles(this.#manifest, this.#dir);
  }

  get id(): ModelId {
    return identityOf(this.#manifest);
  }

  engineSpec(maxBatch: number): Omit<EngineSpec, "threads"> {
    const { format, files, inputs, outputs, kind, task } = this.#manifest;
    return {
      runtime: format,
      dir: resolve(this.#dir),
      files: files.map(({ path }) => path),
      ...(image.feeds?.(kind, inputs) ?? { inputs }),
      outputs: classification.needs(task, outputs),
      maxBatch: Math.min(maxBatch, this.#manifest.maxBatch),
    };
  }

  /**
   * The items of a request, each a batch of one.
   *
   * @throws BAD_REQUEST if `pixels` is not `count` images of the model's size
   */
  split({ count, pixels }: PredictParams): Tensors[] {
    const { width, height } = this.#input;
    const received = ArrayBuffer.isView(pixels) ? `${pixels.byteLength} bytes` : typeof pixels;
    if (received !== `${count * this.#itemBytes} bytes`) {
      throw new ServingError(
        "BAD_REQUEST",
        `Expected ${count} × ${height}×${width}×3 bytes but received ${received}`,
      );
    }
    const name = this.#manifest.inputs[0]?.name ?? "";
    return Array.from({ length: count }, (_, i) => ({
      [name]: {
        dtype: "uint8",
        shape: [1, height, width, 3],
        data: pixels.subarray(i * this.#itemBytes, (i + 1) * this.#itemBytes),
      },
    }));
  }

  /** The answer in the outputs of one item. */
  answer(outputs: Tensors): Classification {
    const { task } = this.#manifest;
    return classification.answer(classification.interpret(outputs, 0, task), this.#question, task);
  }

  /** The batcher's answers as they go over the wire. */
  settle(answers: readonly SettledItem<Tensors>[]): Settled<Classification & ItemReport>[] {
    return answers.map((answer) =>
      answer.ok
        ? {
            ok: true,
            ...this.answer(answer.value),
            batchSize: answer.batchSize,
            dispatchReason: answer.dispatchReason,
            timing: { queueMs: answer.queueMs, computeMs: answer.computeMs },
          }
        : { ok: false, error: toWire(answer.error) },
    );
  }
}
