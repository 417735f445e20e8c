import sharp, { type Sharp } from "sharp";
import { sniffFormat } from "../../../../../../lib/kinds/image/format.ts";
import { screen } from "../../../../../../lib/kinds/image/screen/screen.ts";
import {
  profileChunk,
  profileSegments,
  tableProfile,
  withChunks,
  withSegments,
} from "../../../../../../testkit/hostile-images.ts";
import { animation, photo, plain } from "../samples.ts";

/** Every kind of good file, as other software writes it. */
const clear = { r: 1, g: 200, b: 30, alpha: 0.4 };
const upright = (make: (image: Sharp) => Sharp) =>
  [1, 2, 3, 4, 5, 6, 7, 8].map(
    (orientation) =>
      [`orientation ${orientation}`, () => make(photo(60, 40).withMetadata({ orientation }))] as const,
  );

const FILES: Readonly<Record<string, readonly (readonly [string, () => Sharp])[]>> = {
  JPEG: [
    ["progressive", () => photo(600, 400).jpeg({ progressive: true })],
    [
      "progressive, full colour",
      () => photo(600, 400).jpeg({ progressive: true, chromaSubsampling: "4:4:4" }),
    ],
    ["as mozjpeg writes it", () => photo(600, 400).jpeg({ mozjpeg: true })],
    ["grey", () => photo(60, 40).toColourspace("b-w").jpeg()],
    ["CMYK with its profile", () => photo(60, 40).toColourspace("cmyk").withIccProfile("cmyk").jpeg()],
    ["CMYK without", () => photo(60, 40).toColourspace("cmyk").jpeg()],
    ["Display P3", () => photo(60, 40).withIccProfile("p3").jpeg()],
    ...upright((image) => image.jpeg()),
  ],
  PNG: [
    ["of a palette", () => photo(60, 40).png({ palette: true })],
    ["of 16 bits, interlaced", () => photo(60, 40).toColourspace("rgb16").png({ progressive: true })],
    ["Display P3", () => photo(60, 40).withIccProfile("p3").png()],
    ["transparent", () => plain(60, 40, clear).png()],
    ...upright((image) => image.png()),
  ],
  WebP: [
    ["lossy", () => photo(60, 40).webp()],
    ["lossless", () => photo(60, 40).webp({ lossless: true })],
    ["transparent", () => plain(60, 40, clear).webp()],
    ["animated", () => animation(16).webp()],
    ["animated, lossless", () => animation(16).webp({ lossless: true })],
    ["Display P3", () => photo(60, 40).withIccProfile("p3").webp()],
    ...upright((image) => image.webp()),
  ],
  GIF: [
    ["still", () => photo(60, 40).gif()],
    ["animated", () => animation(16).gif()],
    ["transparent", () => plain(60, 40, clear).gif()],
  ],
  TIFF: [
    ...(["none", "jpeg", "deflate", "lzw", "packbits"] as const).map(
      (compression) => [compression, () => photo(60, 40).tiff({ compression })] as const,
    ),
    ["fax", () => photo(60, 40).toColourspace("b-w").tiff({ compression: "ccittfax4", bitdepth: 1 })],
    ["of 4 bits", () => photo(60, 40).toColourspace("b-w").tiff({ bitdepth: 4 })],
    ["white is zero", () => photo(60, 40).toColourspace("b-w").tiff({ miniswhite: true })],
    ["of 16 bits", () => photo(60, 40).toColourspace("rgb16").tiff()],
    ["of floats", () => photo(60, 40).toColourspace("scrgb").tiff()],
    ["transparent", () => plain(60, 40, clear).tiff()],
    ["CMYK", () => photo(60, 40).toColourspace("cmyk").withIccProfile("cmyk").tiff()],
    [
      "in tiles",
      () => photo(600, 400).tiff({ tile: true, tileWidth: 128, tileHeight: 128, compression: "jpeg" }),
    ],
    ["a pyramid", () => photo(600, 400).tiff({ tile: true, pyramid: true, predictor: "horizontal" })],
    ...upright((image) => image.tiff()),
  ],
  AVIF: [
    ["of 8 bits", () => photo(60, 40).avif({ effort: 0 })],
    ["of 10 bits", () => photo(60, 40).avif({ effort: 0, bitdepth: 10 })],
    ["lossless", () => photo(60, 40).avif({ effort: 0, lossless: true })],
    ["grey", () => photo(60, 40).toColourspace("b-w").avif({ effort: 0 })],
    ["transparent", () => plain(60, 40, clear).avif({ effort: 0 })],
    ["Display P3", () => photo(60, 40).withIccProfile("p3").avif({ effort: 0 })],
    ["turned", () => photo(60, 40).withMetadata({ orientation: 6 }).avif({ effort: 0 })],
  ],
};

const cases = Object.entries(FILES).flatMap(([format, files]) =>
  files.map(([name, make]) => [`${format} ${name}`, make] as const),
);

function screened(bytes: Buffer) {
  const format = sniffFormat(bytes);
  if (!format) throw new Error("of no known format");
  return screen(bytes, format);
}

function render(bytes: Uint8Array): Promise<Buffer> {
  return sharp(bytes, { failOn: "error", autoOrient: true }).resize(32, 32).flatten().raw().toBuffer();
}

async function expectUntouched(bytes: Buffer): Promise<void> {
  const { width, height, orientation, parts } = screened(bytes);
  const { autoOrient } = await sharp(bytes).metadata();
  expect(orientation >= 5 ? [height, width] : [width, height]).toEqual([autoOrient.width, autoOrient.height]);
  expect((await render(Buffer.concat(parts()))).equals(await render(bytes))).toBe(true);
}

test.each(cases)("what is left of a %s gives the same pixels, and its size is right", async (_, make) => {
  await expectUntouched(await make().toBuffer());
});

test.each([
  [
    "JPEG with a press's profile of 1 MB",
    async () =>
      withSegments(
        await photo(60, 40).toColourspace("cmyk").jpeg().toBuffer(),
        profileSegments(tableProfile(4, 20)),
      ),
  ],
  [
    "PNG with a scanner's profile of 1 MB",
    async () => withChunks(await photo(60, 40).png().toBuffer(), [profileChunk(tableProfile(3, 56))]),
  ],
] as const)("a profile by table is applied: %s", async (_, make) => {
  const bytes = await make();
  await expectUntouched(bytes);
  const without = await sharp(bytes, { ignoreIcc: true })
    .resize(32, 32)
    .toColourspace("srgb")
    .raw()
    .toBuffer();
  expect((await render(bytes)).equals(without)).toBe(false);
});
