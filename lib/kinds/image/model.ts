import { resolve } from "node:path";
import type { SettledItem } from "../../batching/batcher.ts";
import { type EngineSpec, runtimeOf } from "../../engines/engine.ts";
import type { Tensors } from "../../engines/tensors.ts";
import { ServingError, toWire } from "../../errors.ts";
import { type Manifest, readManifest, verifyFiles } from "../../models/manifest.ts";
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

  engineSpec(threads: number): EngineSpec {
    const { format, files, inputs, kind, task } = this.#manifest;
    const { width, height } = this.#input;
    return {
      runtime: runtimeOf(format),
      file: resolve(this.#dir, files[0]?.path ?? ""),
      inputTensor: inputs[0]?.name ?? "",
      outputTensor: task.output,
      itemShape: [height, width, 3],
      threads,
      ...(kind.normalisation ? { planes: kind.normalisation } : {}),
    };
  }

  /**
   * The items of a request: views of `[height, width, 3]` uint8.
   *
   * @throws BAD_REQUEST if `pixels` is not `count` images of the model's size
   */
  split({ count, pixels }: PredictParams): Uint8Array[] {
    const received = ArrayBuffer.isView(pixels) ? `${pixels.byteLength} bytes` : typeof pixels;
    if (received !== `${count * this.#itemBytes} bytes`) {
      const { width, height } = this.#input;
      throw new ServingError(
        "BAD_REQUEST",
        `Expected ${count} × ${height}×${width}×3 bytes but received ${received}`,
      );
    }
    return Array.from({ length: count }, (_, i) =>
      pixels.subarray(i * this.#itemBytes, (i + 1) * this.#itemBytes),
    );
  }

  /** `[n, height, width, 3]` in memory of its own, as the engine takes it. */
  join(items: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
    const batch = new Uint8Array(items.length * this.#itemBytes);
    items.forEach((item, i) => {
      batch.set(item, i * this.#itemBytes);
    });
    return batch;
  }

  /** `[n, classes]` logits → one answer an item. */
  answers(logits: Float32Array, count: number): Classification[] {
    const { task } = this.#manifest;
    const batch = { [task.output]: { dtype: "float32", shape: [count, task.labels.length], data: logits } };
    return Array.from({ length: count }, (_, i) =>
      classification.answer(classification.interpret(batch as Tensors, i, task), this.#question, task),
    );
  }

  /** The batcher's answers as they go over the wire. */
  settle(answers: readonly SettledItem<Classification>[]): Settled<Classification & ItemReport>[] {
    return answers.map((answer) =>
      answer.ok
        ? {
            ok: true,
            ...answer.value,
            batchSize: answer.batchSize,
            dispatchReason: answer.dispatchReason,
            timing: { queueMs: answer.queueMs, computeMs: answer.computeMs },
          }
        : { ok: false, error: toWire(answer.error) },
    );
  }
}
