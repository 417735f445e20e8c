import {
  DeadlineExceededError,
  ModelNotFoundError,
  ModelUnavailableError,
  QueueFullError,
  ServingError,
  toWire,
} from "../errors.ts";
import type { ImageInfo, ImageInput } from "../kinds/image/kind.ts";
import type { ImagePipeline } from "../kinds/image/pipeline.ts";
import { Tally } from "../request/tally.ts";
import type {
  ClassifyParams,
  ClassifyResult,
  ImageAnswer,
  ModelAnswer,
  ModelDescription,
  PredictParams,
} from "../types.ts";
import type { AnswerCache } from "./answer-cache.ts";

/** What the dispatcher needs from around it, for one request. */
export interface DispatchRequest extends ClassifyParams {
  /** Asks a model service about one prepared image; throws what it failed with. */
  readonly predict: (model: string, params: PredictParams) => Promise<ModelAnswer>;
  /** On the clock of `performance.now()`. */
  readonly deadline?: number;
  readonly signal?: AbortSignal;
}

export interface DispatcherOptions {
  readonly pipeline: ImagePipeline;
  /** The models there are now. */
  readonly models: () => readonly ModelDescription[];
  /**
   * Questions that may be open to one model at once, from 1. More are refused before their image is decoded: a flood
   * on one model must not keep the decoder from the others.
   */
  readonly maxInFlight: number;
  /** Absent: every question is computed. */
  readonly cache?: AnswerCache;
  /** Told of every decode, seconds. */
  readonly onDecode?: (seconds: number) => void;
}

/**
 * Asks models about images: looks at each image once, decodes it once for each distinct input size, asks all models
 * at the same time and returns what they said. A model or an image that fails takes only its own place in the answer.
 */
export class Dispatcher {
  readonly #options: DispatcherOptions;
  /** Open questions by model. */
  readonly #inFlight = new Tally();

  constructor(options: DispatcherOptions) {
    this.#options = options;
  }

  /** @throws MODEL_NOT_FOUND if a model is asked for by a name nobody knows */
  async classify(request: DispatchRequest): Promise<ClassifyResult> {
    const models = this.#select(request.models);
    return { items: await Promise.all(request.images.map((bytes) => this.#image(bytes, models, request))) };
  }

  #select(names: readonly string[] | undefined): readonly ModelDescription[] {
    const known = this.#options.models();
    if (!names) {
      if (known.length === 0) throw new ServingError("MODEL_UNAVAILABLE", "No model is up");
      return known;
    }
    return names.map((name) => {
      const model = known.find((candidate) => candidate.name === name);
      if (!model) throw new ModelNotFoundError(name);
      return model;
    });
  }

  async #image(
    bytes: Uint8Array,
    models: readonly ModelDescription[],
    request: DispatchRequest,
  ): Promise<ImageAnswer> {
    try {
      const image = await this.#options.pipeline.inspect(bytes);
      const prepared = new Map<string, Promise<Uint8Array>>();
      let decodeMs = 0;
      const prepare = (input: ImageInput): Promise<Uint8Array> => {
        const key = `${input.width}×${input.height}×${input.shortSide ?? ""}`;
        const known = prepared.get(key);
        if (known) return known;
        const began = performance.now();
        const fresh = this.#options.pipeline.prepare(bytes, input, request).then((pixels) => {
          const took = performance.now() - began;
          decodeMs += took;
          this.#options.onDecode?.(took / 1e3);
          return pixels;
        });
        prepared.set(key, fresh);
        return fresh;
      };
      const asked = await Promise.all(
        models.map(async (model) => [model.name, await this.#ask(model, image, prepare, request)] as const),
      );
      return { image, results: Object.fromEntries(asked), timing: { decodeMs } };
    } catch (error) {
      return { error: toWire(error) };
    }
  }

  async #ask(
    model: ModelDescription,
    image: ImageInfo,
    prepare: (input: ImageInput) => Promise<Uint8Array>,
    request: DispatchRequest,
  ): Promise<ModelAnswer> {
    const compute = () => this.#bounded(model, () => this.#compute(model, prepare, request));
    try {
      if (request.noStore || !this.#options.cache) return await compute();
      const key = `${image.sha256}:${model.name}:${model.model.name}@${model.model.version}`;
      return await this.#options.cache.through(key, compute);
    } catch (error) {
      // What the decoder refuses is the image's fault, and the same for every model.
      if (DECODE_ERRORS.has((error as ServingError).type)) throw error;
      return { error: toWire(error) };
    }
  }

  async #bounded(model: ModelDescription, compute: () => Promise<ModelAnswer>): Promise<ModelAnswer> {
    const { maxInFlight } = this.#options;
    if (this.#inFlight.count(model.name) >= maxInFlight) throw new QueueFullError(model.name, maxInFlight);
    this.#inFlight.add(model.name);
    try {
      return await compute();
    } finally {
      this.#inFlight.remove(model.name);
    }
  }

  async #compute(
    model: ModelDescription,
    prepare: (input: ImageInput) => Promise<Uint8Array>,
    { predict, deadline }: DispatchRequest,
  ): Promise<ModelAnswer> {
    if (model.state !== "ready") throw new ModelUnavailableError(model.name);
    const pixels = await prepare(model.input);
    if (deadline !== undefined && performance.now() >= deadline) throw new DeadlineExceededError("decode");
    return predict(model.name, { count: 1, pixels });
  }
}

const DECODE_ERRORS = new Set(["INVALID_IMAGE", "TOO_MANY_PIXELS", "UNSUPPORTED_MEDIA_TYPE"]);
