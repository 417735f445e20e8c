import type { ImageFormat } from "../input.ts";
import { screenAvif } from "./avif.ts";
import { screenGif } from "./gif.ts";
import { screenJpeg } from "./jpeg.ts";
import { screenPng } from "./png.ts";
import type { Screened } from "./screened.ts";
import { screenTiff } from "./tiff.ts";
import { screenWebp } from "./webp.ts";

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
