import type { Orientation } from "./exif.ts";

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
