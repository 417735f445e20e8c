import type { ImageInfo } from "../kind.ts";
import { screenAvif } from "./avif.ts";
import type { Orientation } from "./exif.ts";
import { screenGif } from "./gif.ts";
import { screenJpeg } from "./jpeg.ts";
import { screenPng } from "./png.ts";
import { screenTiff } from "./tiff.ts";
import { screenWebp } from "./webp.ts";

export type ImageFormat = ImageInfo["format"];

/** What our own walk over an image's header found, before any decoder has seen a byte of it. */
export interface Screened {
  /** Pixels as stored. */
  readonly width: number;
  readonly height: number;
  readonly orientation: Orientation;
  /** Pixels that will be decoded: at least `width × height`, more with tiles or an alpha plane of their own. */
  readonly pixels: number;
  /** Bytes of a decoded pixel: what rows take. */
  readonly pixelBytes: number;
  /** Most memory that decoding needs at once, besides some rows and the bytes themselves. */
  readonly memoryBytes: number;
  /** About what decoding takes of a core that has nothing else to do, measured on photos, in milliseconds. */
  readonly expectedMs: number;
  /**
   * What the decoder gets, in parts to be put together: the picture, and of all that may come with it only what its
   * pixels depend on. Views of the bytes, mostly: a copy here would be garbage for this process to collect.
   */
  parts(): readonly Uint8Array[];
}

const SCREENS: Readonly<Record<ImageFormat, (bytes: Buffer) => Screened>> = {
  jpeg: screenJpeg,
  png: screenPng,
  webp: screenWebp,
  gif: screenGif,
  tiff: screenTiff,
  avif: screenAvif,
};

/**
 * Walks an image's header: forward, within its bytes and within {@link BOUNDS}, so that it takes at most a few
 * milliseconds a mebibyte, whatever the bytes say.
 *
 * @throws {ServingError} INVALID_IMAGE
 */
export function screen(bytes: Uint8Array, format: ImageFormat): Screened {
  const screened = SCREENS[format](Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  return { ...screened, parts: () => fewer(screened.parts()) };
}

/** More than a good image has: there a copy costs less than so many messages' parts. */
const MAX_PARTS = 64;

/** Parts that follow each other in memory as one. */
function fewer(parts: readonly Uint8Array[]): readonly Uint8Array[] {
  const joined: Uint8Array[] = [];
  for (const part of parts) {
    const last = joined.at(-1);
    if (last && last.buffer === part.buffer && last.byteOffset + last.byteLength === part.byteOffset) {
      const length = last.byteLength + part.byteLength;
      joined[joined.length - 1] = Buffer.from(last.buffer, last.byteOffset, length);
    } else joined.push(part);
  }
  return joined.length > MAX_PARTS ? [Buffer.concat(joined)] : joined;
}
