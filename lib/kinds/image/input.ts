import type { InputSpec, Inspection } from "../kind.ts";

export type ImageFormat = "jpeg" | "png" | "webp" | "gif" | "avif" | "tiff";

/** What a model of this kind wants: its frame. */
export interface ImageInput extends InputSpec {
  readonly type: "image";
  /** Pixels of the prepared image. */
  readonly width: number;
  readonly height: number;
  /**
   * How a photo becomes `width × height`: the short side is scaled to `shortSide` (default: the photo just covers
   * the frame), then the centre is cut out.
   */
  readonly shortSide?: number;
}

/** What is known of an image before its pixels are decoded. */
export interface ImageInfo extends Inspection {
  /** Pixels, after EXIF orientation. */
  readonly width: number;
  readonly height: number;
  readonly format: ImageFormat;
  /** Encoded size. */
  readonly bytes: number;
}

/** The tensor of a prepared image: `[1, height, width, 3]` uint8, RGB. */
export const PIXELS = "pixels";
