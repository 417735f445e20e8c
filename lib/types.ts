import type { WireError } from "./errors.ts";
import type { ImageInfo, ImageInput } from "./kinds/image/kind.ts";
import type { Classification } from "./tasks/classification.ts";

export interface ModelVersion {
  readonly name: string;
  readonly version: number;
}

/** `metadata` of a model service: how dispatcher and gateway find it. */
export interface ModelMetadata {
  readonly kind: "model";
  readonly question: string;
  readonly model: ModelVersion;
  readonly input: ImageInput;
  readonly labels: readonly string[];
  readonly batching: {
    readonly maxBatchSize: number;
    readonly maxQueueSize: number;
    readonly maxQueueDelayMs: number;
    /** Batches computed at once. */
    readonly concurrency: number;
  };
}

/** Why a batch left the queue. */
export type DispatchReason = "full" | "idle" | "delay" | "deadline";

/** What happened to one item on its way through the batcher. Times in milliseconds. */
export interface ItemReport {
  readonly batchSize: number;
  readonly dispatchReason: DispatchReason;
  readonly timing: { readonly queueMs: number; readonly computeMs: number };
}

/** Parameters of every image model's `predict`: `count` prepared images, one after the other. */
export interface PredictParams {
  readonly count: number;
  /** `[count, height, width, 3]` uint8, RGB, NHWC. */
  readonly pixels: Uint8Array;
}

export type Settled<T> = ({ readonly ok: true } & T) | { readonly ok: false; readonly error: WireError };

/** Result of every model's `predict`: one entry for each item, in their order. */
export interface PredictResult<T = Classification> {
  readonly model: ModelVersion;
  readonly node: string;
  readonly items: readonly Settled<T & ItemReport>[];
}

/** Parameters of `dispatcher.classify`. */
export interface ClassifyParams {
  /** Encoded images as they came in: JPEG, PNG, WebP, GIF, AVIF or TIFF bytes. At least one. */
  readonly images: readonly Uint8Array[];
  /** Names of model services, without repeats; absent: every image model. */
  readonly models?: readonly string[];
  /** Neither read nor fill the response cache. */
  readonly noStore?: boolean;
}

/** One model's word on one image. */
export type ModelAnswer =
  | (Classification &
      ItemReport & { readonly model: ModelVersion; readonly node: string; readonly cached?: boolean })
  | { readonly error: WireError };

/** One image's answers by model service name, or why it could not be read. */
export type ImageAnswer =
  | {
      readonly image: ImageInfo;
      readonly results: Readonly<Record<string, ModelAnswer>>;
      readonly timing: { readonly decodeMs: number };
    }
  | { readonly error: WireError };

/** Result of `dispatcher.classify`: one entry for each image, in their order. */
export interface ClassifyResult {
  readonly items: readonly ImageAnswer[];
}

/** One row of the model list. */
export interface ModelDescription extends Omit<ModelMetadata, "kind" | "model"> {
  /** The service's name: what `models=` and the addresses take. */
  readonly name: string;
  /** Highest version among the replicas. */
  readonly model: ModelVersion;
  readonly state: "ready" | "unavailable";
  /** Nodes that serve it now. */
  readonly replicas: readonly string[];
}
