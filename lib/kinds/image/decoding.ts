import type { ImageFormat } from "./input.ts";

/** What goes between the main process and its decoders. */

export interface Size {
  readonly width: number;
  readonly height: number;
}

/** One image to decode. */
export interface Job {
  /** What screening left, to be put together. */
  readonly parts: readonly Uint8Array[];
  readonly format: ImageFormat;
  /** What the photo has to cover. */
  readonly box: Size;
  /** What of the box's centre is wanted. */
  readonly frame: Size;
  /** Most pixels that may be decoded. */
  readonly maxPixels: number;
}

export interface ToDecoder {
  readonly id: number;
  readonly job: Job;
}

/** Why a decoder refused an image: its bytes, its size or channels that are no colours. */
export type Refusal = "damaged" | "pixels" | "colours";

export type Decoded =
  | { readonly ok: true; readonly pixels: Uint8Array }
  | { readonly ok: false; readonly reason: Refusal };

export type FromDecoder = { readonly ready: true } | ({ readonly id: number } & Decoded);
