import { deflateSync } from "node:zlib";
import sharp, { type Sharp } from "sharp";
import { pngChunk } from "../../../../../testkit/hostile-images.ts";

/** A picture of one colour. */
export function plain(
  width: number,
  height: number,
  background: string | { r: number; g: number; b: number; alpha: number } = "#c83214",
): Sharp {
  const channels = typeof background === "string" ? 3 : 4;
  return sharp({ create: { width, height, channels, background } });
}

/** A picture whose pixels are `colour(x, y)` = [red, green, blue]. */
export function painted(width: number, height: number, colour: (x: number, y: number) => number[]): Sharp {
  const pixels = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) pixels.set(colour(x, y), (y * width + x) * 3);
  }
  return sharp(pixels, { raw: { width, height, channels: 3 } });
}

/** Soft shapes with grain: every decoder's code paths have something to do. */
export function photo(width: number, height: number): Sharp {
  let state = 7;
  return painted(width, height, (x, y) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const grain = (state >>> 27) - 16;
    return [x * 0.2, y * 0.25, 60].map(
      (base, i) => 70 + base + 40 * Math.sin(x / (20 + 9 * i) + y / 31) + grain,
    );
  });
}

/** Red, then green, then blue: the pages of one tall picture. */
export function animation(side: number): Sharp {
  const pixels = Buffer.concat(
    ["#f00", "#0f0", "#00f"].map((_, frame) => {
      const page = Buffer.alloc(side * side * 3);
      for (let i = frame; i < page.length; i += 3) page[i] = 255;
      return page;
    }),
  );
  return sharp(pixels, { raw: { width: side, height: side * 3, channels: 3, pageHeight: side } });
}

/** The PNG, declaring another size, with a right checksum. */
export function withSize(png: Buffer, width: number, height: number): Buffer {
  const header = Buffer.from(png.subarray(16, 29));
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  return Buffer.concat([png.subarray(0, 8), pngChunk("IHDR", header), png.subarray(33)]);
}

/** A compressed text chunk that inflates to `size` bytes. */
export function textChunk(keyword: string, size: number): Buffer {
  return pngChunk(
    "zTXt",
    Buffer.concat([Buffer.from(`${keyword}\0\0`), deflateSync(Buffer.alloc(size, "a"))]),
  );
}

/** An uncompressed 8-bit RGB TIFF with `channels - 3` samples of unnamed meaning for each pixel; all are 100. */
export function tiffOfChannels(width: number, height: number, channels: number): Buffer {
  const size = width * height * channels;
  const entries: [tag: number, type: 3 | 4, count: number, value: number][] = [
    [256, 3, 1, width],
    [257, 3, 1, height],
    [258, 3, channels, 8 + size], // BitsPerSample, behind the pixels
    [262, 3, 1, 2], // PhotometricInterpretation: RGB
    [273, 4, 1, 8], // StripOffsets
    [277, 3, 1, channels],
    [278, 3, 1, height],
    [279, 4, 1, size],
  ];
  const file = Buffer.alloc(8 + size + channels * 2 + 2 + entries.length * 12 + 4, 100);
  file.write("II*\0", "latin1");
  for (let i = 0; i < channels; i += 1) file.writeUInt16LE(8, 8 + size + i * 2);
  let at = 8 + size + channels * 2;
  file.writeUInt32LE(at, 4);
  at = file.writeUInt16LE(entries.length, at);
  for (const [tag, type, count, value] of entries) {
    at = file.writeUInt16LE(tag, at);
    at = file.writeUInt16LE(type, at);
    at = file.writeUInt32LE(count, at);
    at = file.writeUInt32LE(value, at);
  }
  file.writeUInt32LE(0, at);
  return file;
}

/** A small file of each format and of what its decoder has code of its own for: where fuzzing starts. */
export function goodFiles(): Promise<Buffer[]> {
  const p3 = () => photo(40, 30).withIccProfile("p3");
  return Promise.all(
    [
      p3()
        .withExif({ IFD0: { Artist: "nobody" } })
        .jpeg(),
      photo(40, 30).jpeg({ progressive: true }),
      photo(40, 30).toColourspace("cmyk").withIccProfile("cmyk").jpeg(),
      p3().png(),
      photo(40, 30).toColourspace("rgb16").png({ progressive: true }),
      photo(40, 30).png({ palette: true }),
      photo(40, 30).webp(),
      photo(40, 30).webp({ lossless: true }),
      p3().withMetadata({ orientation: 6 }).webp(),
      animation(16).webp(),
      animation(16).gif(),
      photo(40, 30).avif({ effort: 0 }),
      p3().ensureAlpha(0.5).avif({ effort: 0, bitdepth: 10 }),
      photo(40, 30).tiff({ compression: "lzw", predictor: "horizontal" }),
      photo(40, 30).tiff({ compression: "jpeg" }),
      photo(40, 30).tiff({ compression: "deflate", tile: true, tileWidth: 16, tileHeight: 16 }),
      photo(40, 30).toColourspace("scrgb").tiff({ compression: "none" }),
    ].map((image) => image.toBuffer()),
  );
}

/** What structures are put into: 40×30 pixels each. */
export async function bases(): Promise<{ jpeg: Buffer; png: Buffer; webp: Buffer; avif: Buffer }> {
  const [jpeg, png, webp, avif] = (await Promise.all([
    photo(40, 30).jpeg().toBuffer(),
    photo(40, 30).png().toBuffer(),
    photo(40, 30).webp().toBuffer(),
    photo(40, 30).avif({ effort: 0 }).toBuffer(),
  ])) as [Buffer, Buffer, Buffer, Buffer];
  return { jpeg, png, webp, avif };
}
