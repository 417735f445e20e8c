import type { Tensors } from "../../engines/tensors.ts";
import type { Scope } from "../../request/scope.ts";
import type { Input, KindOptions, Preparer } from "../kind.ts";
import { type ImageInfo, type ImageInput, PIXELS } from "./input.ts";
import { ImagePipeline } from "./pipeline.ts";

/** The image kind in the dispatcher: the pipeline's pixels as tensors. */
export class ImagePreparer implements Preparer<ImageInput, ImageInfo> {
  readonly #pipeline: ImagePipeline;

  /** @throws TypeError on an option out of its range */
  constructor({ onDeath, ...limits }: KindOptions) {
    this.#pipeline = new ImagePipeline({ ...limits, onDecoderEnded: onDeath });
  }

  get ready(): boolean {
    return this.#pipeline.ready;
  }

  /** Starts the decoders; resolves when one is up. */
  start(): Promise<void> {
    return this.#pipeline.start();
  }

  inspect({ bytes }: Input): Promise<ImageInfo> {
    return this.#pipeline.inspect(bytes);
  }

  async prepare({ bytes }: Input, wanted: ImageInput, scope: Scope, onStart?: () => void): Promise<Tensors> {
    const data = await this.#pipeline.prepare(bytes, wanted, { ...scope, ...(onStart ? { onStart } : {}) });
    const { width, height } = wanted;
    return { [PIXELS]: { dtype: "uint8", shape: [1, height, width, 3], data } };
  }

  async close(): Promise<void> {
    this.#pipeline.close();
  }
}
