import { resolve } from "node:path";
import type { SettledItem } from "../../batching/batcher.ts";
import { type EngineSpec, runtimeOf } from "../../engines/engine.ts";
import { ServingError, toWire } from "../../errors.ts";
import { type Manifest, readManifest, verifyFile } from "../../models/manifest.ts";
import type { Classification, ItemReport, ModelMetadata, PredictParams, Settled } from "../../types.ts";
import { classify, type Question } from "./classification.ts";

/** One version of an image classifier on disk, asked one question: everything about it but the engine. */
export class ImageModel {
  readonly #dir: string;
  readonly #manifest: Manifest;
  readonly #question: Question;
  readonly #itemBytes: number;

  /**
   * @param dir a version's folder, with `manifest.json`
   * @throws if the manifest is wrong or has no such group
   */
  constructor(dir: string, { group, threshold }: { readonly group: string; readonly threshold: number }) {
    this.#dir = dir;
    this.#manifest = readManifest(dir);
    const { groups, labels, input } = this.#manifest;
    const indices = groups[group];
    if (!indices) {
      throw new Error(
        `Expected group to be one of ${Object.keys(groups).join(", ")} but received "${group}"`,
      );
    }
    this.#question = { labels, group: indices, threshold };
    this.#itemBytes = input.width * input.height * input.channels;
  }

  /** What the registry says of it. */
  get description(): Pick<ModelMetadata, "model" | "input" | "labels"> {
    const { name, version, input, labels } = this.#manifest;
    return {
      model: { name, version },
      input: {
        type: "image",
        width: input.width,
        height: input.height,
        ...(input.shortSide ? { shortSide: input.shortSide } : {}),
      },
      labels,
    };
  }

  /** Reads the weights once and compares their digest. */
  verify(): Promise<void> {
    return verifyFile(this.#manifest, this.#dir);
  }

  engineSpec(threads: number): EngineSpec {
    const { format, file, input, output } = this.#manifest;
    return {
      runtime: runtimeOf(format),
      file: resolve(this.#dir, file),
      inputTensor: input.tensor,
      outputTensor: output.tensor,
      itemShape: [input.height, input.width, input.channels],
      threads,
      ...(input.normalisation === "in-graph" ? {} : { planes: input.normalisation }),
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
      const { width, height, channels } = this.#manifest.input;
      throw new ServingError(
        "BAD_REQUEST",
        `Expected ${count} × ${height}×${width}×${channels} bytes but received ${received}`,
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
    const classes = logits.length / count;
    return Array.from({ length: count }, (_, i) =>
      classify(logits.subarray(i * classes, (i + 1) * classes), this.#question),
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
