/**
 * What an image may consist of. A real one stays far below each of these; they end a walk over bytes that were made to
 * have no end, or a decode that would do the same work again and again.
 */
export const BOUNDS = {
  /** JPEG: segments, scans included. A photo has 10 to 40; the largest metadata that fits into 10 MiB, 160. */
  jpegSegments: 4_096,
  /** JPEG: scans. Encoders write 6 to 20; one for each frequency of each of three colours would be 190. */
  jpegScans: 100,
  /**
   * JPEG: coefficients that the scans visit for each one the image has. The script all encoders use comes to 4; a
   * decoder does 40 megapixels of 5 in 1.5 s.
   */
  jpegVisits: 5,
  /** PNG: chunks. Real files have one for every few kilobytes of pixels. */
  pngChunks: 50_000,
  /** WebP: chunks looked at for the first frame, the profile and the orientation. A still image has 1 to 6. */
  webpChunks: 1_000,
  /** GIF: blocks of comments and extensions before the first picture, each of at most 255 bytes. */
  gifBlocks: 50_000,
  /** TIFF: entries of the first page. Cameras write 20 to 60. */
  tiffEntries: 512,
  /** TIFF: strips or tiles. Rows of their own are 6,000, the smallest tiles of 40 megapixels (16×16) 156,250. */
  tiffBlocks: 200_000,
  /** TIFF: the largest strip or tile, decoded, in bytes: it is held at once. That is 40 megapixels of RGB. */
  tiffBlockBytes: 128 * 2 ** 20,
  /** AVIF: boxes of all levels. A grid of 150 tiles with alpha has 350 (an item each), a plain image 15. */
  avifBoxes: 2_048,
  /** AVIF: items (images, tiles, metadata) and, of each, pieces and properties. */
  avifItems: 512,
  avifExtents: 16,
  avifProperties: 1_024,
  /** AVIF: units of the AV1 bitstream of one item, and frames among them: progressive ones have 2 to 4. */
  avifUnits: 256,
  avifFrames: 4,
  /** Colour profiles, in bytes. Displays' have 0.5 to 4 KB, scanners' up to 1 MB, presses' 0.5 to 3 MB. */
  profileBytes: 4 * 2 ** 20,
  /** Colour profiles: tags. The library behind (Little CMS) takes as many. */
  profileTags: 100,
  /** EXIF: entries of the first directory, where the orientation stands. Cameras write about 12. */
  exifEntries: 512,
} as const;
