import { createHash } from "node:crypto";
import { jest } from "@jest/globals";
import sharp, { type Sharp } from "sharp";
import { type ErrorCode, ServingError } from "../../../../../lib/errors.ts";
import type { ImageInput } from "../../../../../lib/kinds/image/input.ts";
import { ImagePipeline } from "../../../../../lib/kinds/image/pipeline.ts";
import { usageOf } from "../../../../../lib/process/child.ts";
import { withChunks } from "../../../../../testkit/hostile-images.ts";
import { animation, painted, photo, plain, textChunk, tiffOfChannels, withSize } from "./samples.ts";

const pipeline = new ImagePipeline();
const frame = (width: number, height = width, shortSide?: number): ImageInput => ({
  type: "image",
  width,
  height,
  ...(shortSide ? { shortSide } : {}),
});

/** The refusal of both ways in; they must agree. */
async function refusal(bytes: Uint8Array, by = pipeline): Promise<ServingError> {
  const outcomes = await Promise.allSettled([by.inspect(bytes), by.prepare(bytes, frame(32))]);
  const [first, second] = outcomes.map((outcome) => {
    if (outcome.status === "fulfilled") throw new Error("accepted");
    return outcome.reason as ServingError;
  });
  expect(first).toBeInstanceOf(ServingError);
  expect(second).toBeInstanceOf(ServingError);
  expect(second?.type).toBe(first?.type);
  return first as ServingError;
}

function pixel(pixels: Uint8Array, width: number, x: number, y: number): number[] {
  return [...pixels.subarray((y * width + x) * 3, (y * width + x) * 3 + 3)];
}

function expectColour(actual: number[], expected: number[], tolerance = 2): void {
  const worst = Math.max(...actual.map((value, i) => Math.abs(value - (expected[i] ?? Number.NaN))));
  if (!(worst <= tolerance)) expect(actual).toEqual(expected);
}

describe("inspect", () => {
  test.each<[string, (image: Sharp) => Sharp]>([
    ["jpeg", (image) => image.jpeg()],
    ["png", (image) => image.png()],
    ["webp", (image) => image.webp()],
    ["gif", (image) => image.gif()],
    ["avif", (image) => image.avif()],
    ["tiff", (image) => image.tiff()],
  ])("tells size, format and hash of a %s", async (format, encode) => {
    const bytes = await encode(photo(60, 40)).toBuffer();
    await expect(pipeline.inspect(bytes)).resolves.toEqual({
      width: 60,
      height: 40,
      format,
      bytes: bytes.length,
      sha256: createHash("sha256").update(bytes).digest("hex"),
    });
  });

  test("tells the size of the upright photo and of the first frame", async () => {
    const turned = await photo(60, 40).withMetadata({ orientation: 6 }).jpeg().toBuffer();
    await expect(pipeline.inspect(turned)).resolves.toMatchObject({ width: 40, height: 60 });
    const moving = await animation(16).gif().toBuffer();
    await expect(pipeline.inspect(moving)).resolves.toMatchObject({ width: 16, height: 16 });
  });
});

describe("prepare", () => {
  test.each<[string, () => Sharp, number[]]>([
    ["JPEG", () => plain(64, 64).jpeg({ quality: 100 }), [200, 50, 20]],
    ["progressive JPEG", () => plain(64, 64).jpeg({ quality: 100, progressive: true }), [200, 50, 20]],
    ["PNG", () => plain(64, 64).png(), [200, 50, 20]],
    ["interlaced PNG", () => plain(64, 64).png({ progressive: true }), [200, 50, 20]],
    ["palette PNG", () => plain(64, 64).png({ palette: true }), [200, 50, 20]],
    ["WebP", () => plain(64, 64).webp({ lossless: true }), [200, 50, 20]],
    ["GIF", () => plain(64, 64).gif(), [200, 50, 20]],
    ["AVIF", () => plain(64, 64).avif({ quality: 90 }), [200, 50, 20]],
    ["TIFF", () => plain(64, 64).tiff({ compression: "lzw" }), [200, 50, 20]],
    ["greyscale JPEG", () => plain(64, 64, "#808080").toColourspace("b-w").jpeg(), [128, 128, 128]],
    ["greyscale PNG", () => plain(64, 64, "#808080").toColourspace("b-w").png(), [128, 128, 128]],
    // What libvips' CMYK profile makes of the colour: out of its gamut, so near and not equal.
    ["CMYK JPEG", () => plain(64, 64).toColourspace("cmyk").jpeg({ quality: 100 }), [204, 41, 0]],
    [
      "CMYK TIFF with its profile",
      () => plain(64, 64).toColourspace("cmyk").withIccProfile("cmyk").tiff(),
      [201, 48, 22],
    ],
    ["16-bit PNG", () => plain(64, 64).toColourspace("rgb16").png(), [200, 50, 20]],
    [
      "16-bit PNG with an sRGB profile",
      () => plain(64, 64).toColourspace("rgb16").withIccProfile("srgb").png(),
      [200, 50, 20],
    ],
    [
      "16-bit PNG with a Display P3 profile",
      () => plain(64, 64).toColourspace("rgb16").withIccProfile("p3").png(),
      [200, 50, 20],
    ],
    [
      "JPEG with a Display P3 profile",
      () => plain(64, 64).withIccProfile("p3").jpeg({ quality: 100 }),
      [200, 50, 20],
    ],
    [
      "10-bit AVIF with a profile",
      () => plain(64, 64).withIccProfile("srgb").avif({ quality: 90, bitdepth: 10 }),
      [200, 50, 20],
    ],
    [
      "PNG half transparent",
      () => plain(64, 64, { r: 200, g: 50, b: 20, alpha: 0.5 }).png(),
      [227, 152, 137],
    ],
    ["PNG fully transparent", () => plain(64, 64, { r: 200, g: 50, b: 20, alpha: 0 }).png(), [255, 255, 255]],
    [
      "16-bit PNG half transparent",
      () => plain(64, 64, { r: 200, g: 50, b: 20, alpha: 0.5 }).toColourspace("rgb16").png(),
      [227, 152, 137],
    ],
    ["transparent WebP", () => plain(64, 64, { r: 200, g: 50, b: 20, alpha: 0 }).webp(), [255, 255, 255]],
    ["transparent GIF", () => plain(64, 64, { r: 200, g: 50, b: 20, alpha: 0 }).gif(), [255, 255, 255]],
    ["animated GIF: its first frame", () => animation(64).gif(), [255, 0, 0]],
    ["animated WebP: its first frame", () => animation(64).webp({ lossless: true }), [255, 0, 0]],
  ])("makes sRGB of a %s", async (_, make, colour) => {
    const pixels = await pipeline.prepare(await make().toBuffer(), frame(24, 16));
    expect(pixels.byteLength).toBe(24 * 16 * 3);
    for (let y = 0; y < 16; y += 1) {
      for (let x = 0; x < 24; x += 1) expectColour(pixel(pixels, 24, x, y), colour);
    }
  });

  test("the files with a Display P3 profile hold other numbers than sRGB", async () => {
    const bytes = await plain(8, 8).withIccProfile("p3").png().toBuffer();
    const stored = await sharp(bytes, { ignoreIcc: true }).raw().toBuffer();
    expectColour([...stored.subarray(0, 3)], [184, 63, 36]);
  });

  // Colours of the corners, clockwise from the top left, of the upright photo: EXIF 2.32, tag 274.
  test.each([
    [1, "RGWB"],
    [2, "GRBW"],
    [3, "WBRG"],
    [4, "BWGR"],
    [5, "RBWG"],
    [6, "BRGW"],
    [7, "WGRB"],
    [8, "GWBR"],
  ])("turns a photo of EXIF orientation %i upright", async (orientation, corners) => {
    const colours: Record<string, number[]> = {
      R: [255, 0, 0],
      G: [0, 255, 0],
      B: [0, 0, 255],
      W: [255, 255, 255],
    };
    const image = painted(300, 200, (x, y) => colours[["RG", "BW"][+(y >= 100)]?.[+(x >= 150)] ?? ""] ?? []);
    const jpeg = await image.withMetadata({ orientation }).jpeg({ quality: 100 }).toBuffer();
    const pixels = await pipeline.prepare(jpeg, frame(40));
    const seen = [
      [4, 4],
      [35, 4],
      [35, 35],
      [4, 35],
    ].map(([x = 0, y = 0]) => pixel(pixels, 40, x, y));
    for (const [i, corner] of [...corners].entries()) expectColour(seen[i] ?? [], colours[corner] ?? [], 4);
  });

  describe("scales and cuts out the centre", () => {
    // Red grows by one for each pixel to the right, green for each one down: a colour is a place in the photo.
    const place = () => painted(250, 200, (x, y) => [x, y, 0]).png();
    const portrait = () => painted(200, 250, (x, y) => [x, y, 0]).png();

    test.each<[string, () => Sharp, ImageInput, number[], number[]]>([
      ["a landscape just covers the frame", place, frame(100), [25, 0, 0], [224, 199, 0]],
      ["a portrait just covers the frame", portrait, frame(100), [0, 25, 0], [199, 224, 0]],
      ["a wide frame", place, frame(100, 40), [0, 50, 0], [249, 149, 0]],
      ["a short side above the frame", place, frame(80, 80, 100), [45, 20, 0], [204, 179, 0]],
      ["a short side, wide frame", place, frame(100, 60, 100), [25, 40, 0], [224, 159, 0]],
      ["a short side, upright photo", portrait, frame(80, 80, 100), [20, 45, 0], [179, 204, 0]],
      ["a short side too small for the frame", place, frame(100, 100, 60), [25, 0, 0], [224, 199, 0]],
      [
        "a short side that only suits one axis of the frame",
        place,
        frame(200, 60, 100),
        [0, 62, 0],
        [249, 137, 0],
      ],
      ["a small photo is enlarged", place, frame(500, 400), [0, 0, 0], [249, 199, 0]],
    ])("%s", async (_, make, input, topLeft, bottomRight) => {
      const pixels = await pipeline.prepare(await make().toBuffer(), input);
      const { width, height } = input;
      expect(pixels.byteLength).toBe(width * height * 3);
      expectColour(pixel(pixels, width, 0, 0), topLeft, 3);
      expectColour(pixel(pixels, width, width - 1, height - 1), bottomRight, 3);
    });

    test.each([
      [1, 5000],
      [5000, 1],
      [1, 1],
    ])("a photo of %i×%i", async (width, height) => {
      const pixels = await pipeline.prepare(await plain(width, height).png().toBuffer(), frame(32));
      expect(pixels).toEqual(new Uint8Array(32 * 32 * 3).map((_, i) => [200, 50, 20][i % 3] ?? 0));
    });
  });

  // The cubic filter is 0.62 and 0.49 away, libvips' quick shrinking on load 0.66 in the second case.
  test.each([
    [320, 240],
    [640, 480],
  ])("stays near the antialiased bilinear resize of training (%i×%i JPEG)", async (width, height) => {
    const jpeg = await photo(width, height).jpeg({ quality: 90 }).toBuffer();
    const full = await sharp(jpeg).raw().toBuffer();
    const expected = bilinear(full, width, height, 96);
    const pixels = await pipeline.prepare(jpeg, frame(96));
    const difference =
      pixels.reduce((sum, value, i) => sum + Math.abs(value - (expected[i] ?? 0)), 0) / pixels.length;
    expect(difference).toBeLessThan(0.45);
  });

  test("keeps no image in memory", async () => {
    const bytes = await photo(64, 64).jpeg().toBuffer();
    const mebibyte = 2 ** 20;
    const used = () =>
      [process.pid, ...pipeline.decoderPids].reduce(
        (sum, pid) => sum + (usageOf(pid)?.memoryBytes ?? 0) / mebibyte,
        0,
      );
    await pipeline.start();
    const before = used();
    // 3 MiB each; what V8 has not collected yet is some 64 MiB in each process.
    for (let i = 0; i < 160; i += 1) await pipeline.prepare(bytes, frame(1024));
    expect(used() - before).toBeLessThan(300);
  });

  test("reads a view into a larger buffer and leaves it as it was", async () => {
    const bytes = await photo(60, 40).jpeg().toBuffer();
    const around = new Uint8Array(bytes.length + 200).fill(7);
    around.set(bytes, 100);
    const before = around.slice();
    const pixels = await pipeline.prepare(around.subarray(100, 100 + bytes.length), frame(32));
    expect(pixels).toEqual(await pipeline.prepare(bytes, frame(32)));
    expect(around).toEqual(before);
  });

  test("takes the first page of a file whose pages together are over the limit", async () => {
    const small = new ImagePipeline({ maxPixels: 300 });
    for (const bytes of [await animation(16).gif().toBuffer(), await animation(16).webp().toBuffer()]) {
      await expect(small.inspect(bytes)).resolves.toMatchObject({ width: 16, height: 16 });
      await expect(small.prepare(bytes, frame(8))).resolves.toHaveProperty("byteLength", 8 * 8 * 3);
    }
  });

  test.each<[string, (jpeg: Buffer) => Buffer]>([
    ["trailing text", (jpeg) => Buffer.concat([jpeg, Buffer.from("trailing")])],
    [
      "stray bytes between segments",
      (jpeg) => insert(jpeg, jpeg.indexOf("\xff\xdb", 0, "latin1"), [0, 1, 2]),
    ],
    ["a broken EXIF block", (jpeg) => spoil(jpeg, jpeg.indexOf("Exif") + 11, 6)],
    ["a broken colour profile", (jpeg) => spoil(jpeg, jpeg.indexOf("ICC_PROFILE") + 50, 6)],
    ["bits flipped in its scan", (jpeg) => spoil(jpeg, jpeg.length - 900, 1)],
  ])("accepts a JPEG with %s, as browsers do", async (_, dirty) => {
    const image = photo(200, 150)
      .withExif({ IFD0: { Artist: "nobody" } })
      .withIccProfile("p3", { attach: true });
    const jpeg = dirty(await image.jpeg({ quality: 90 }).toBuffer());
    await expect(pipeline.inspect(jpeg)).resolves.toMatchObject({ width: 200, height: 150 });
    await expect(pipeline.prepare(jpeg, frame(32))).resolves.toHaveProperty("byteLength", 32 * 32 * 3);
  });
});

describe("bad input", () => {
  const svg =
    '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>';

  test.each<[string, ErrorCode, string | Buffer]>([
    ["nothing", "BAD_REQUEST", ""],
    ["text", "UNSUPPORTED_MEDIA_TYPE", "I am a cat, honestly. ".repeat(40)],
    ["SVG", "UNSUPPORTED_MEDIA_TYPE", svg],
    ["SVG with an XML prolog", "UNSUPPORTED_MEDIA_TYPE", `<?xml version="1.0"?>\n${svg}`],
    ["SVG with a byte order mark", "UNSUPPORTED_MEDIA_TYPE", `\ufeff${svg}`],
    ["a zip", "UNSUPPORTED_MEDIA_TYPE", Buffer.from("PK\x03\x04\x14\0\0\0\x08\0".padEnd(400, "\0"))],
    ["PDF", "UNSUPPORTED_MEDIA_TYPE", "%PDF-1.7\n%%EOF"],
    ["HEIC", "UNSUPPORTED_MEDIA_TYPE", "\0\0\0\x18ftypheic\0\0\0\0mif1heic"],
    ["BMP", "UNSUPPORTED_MEDIA_TYPE", "BM6\0\0\0\0\0\0\0"],
    [
      "garbage that starts like a JPEG",
      "INVALID_IMAGE",
      Buffer.from([0xff, 0xd8, 0xff, 0xe0, ...Buffer.from(svg)]),
    ],
    ["garbage that starts like a PNG", "INVALID_IMAGE", Buffer.from(`\x89PNG\r\n\x1a\n${svg}`, "latin1")],
    ["garbage that starts like a WebP", "INVALID_IMAGE", `RIFF\x40\0\0\0WEBPVP8 ${svg}`],
    ["garbage that starts like a GIF", "INVALID_IMAGE", `GIF89a${svg}`],
    ["garbage that starts like an AVIF", "INVALID_IMAGE", `\0\0\0\x14ftypavif\0\0\0\0avif${svg}`],
    ["garbage that starts like a TIFF", "INVALID_IMAGE", `II*\0${svg}`],
  ])("%s is %s", async (_, code, content) => {
    const error = await refusal(Buffer.from(content));
    expect(error.type).toBe(code);
    expect(error.message).not.toMatch(/vips|lib|corrupt header|\/|node_modules/i);
  });

  test("one byte over the limit is PAYLOAD_TOO_LARGE", async () => {
    const eleven = Buffer.concat([await photo(40, 30).jpeg().toBuffer(), Buffer.alloc(11 * 2 ** 20)]);
    const error = await refusal(eleven);
    expect(error.type).toBe("PAYLOAD_TOO_LARGE");
    expect(error.message).toBe(`The image has ${eleven.length} bytes; at most 10485760 are allowed`);

    const jpeg = await photo(40, 30).jpeg().toBuffer();
    await expect(refusal(jpeg, new ImagePipeline({ maxBytes: jpeg.length - 1 }))).resolves.toMatchObject({
      type: "PAYLOAD_TOO_LARGE",
    });
    await expect(new ImagePipeline({ maxBytes: jpeg.length }).inspect(jpeg)).resolves.toBeDefined();
  });

  test("a PNG that declares 60,000×60,000 is TOO_MANY_PIXELS", async () => {
    const error = await refusal(withSize(await plain(16, 16).png().toBuffer(), 60_000, 60_000));
    expect(error.type).toBe("TOO_MANY_PIXELS");
    expect(error.message).toBe("60000×60000 pixels; at most 40000000 are allowed");
  });

  test.each<[string, (image: Sharp) => Sharp]>([
    ["JPEG", (image) => image.jpeg()],
    ["PNG", (image) => image.png()],
    ["WebP", (image) => image.webp()],
    ["GIF", (image) => image.gif()],
    ["AVIF", (image) => image.avif()],
    ["TIFF", (image) => image.tiff()],
  ])("one row over the limit is TOO_MANY_PIXELS (%s)", async (_, encode) => {
    const small = new ImagePipeline({ maxPixels: 64 * 63 });
    await expect(refusal(await encode(plain(64, 64)).toBuffer(), small)).resolves.toMatchObject({
      type: "TOO_MANY_PIXELS",
    });
    await expect(small.inspect(await encode(plain(64, 63)).toBuffer())).resolves.toBeDefined();
  });

  test("a decompression bomb of 42 megapixels in a small file is TOO_MANY_PIXELS", async () => {
    const bomb = await plain(7000, 6000).png().toBuffer();
    expect(bomb.length).toBeLessThan(1_000_000);
    await expect(refusal(bomb)).resolves.toMatchObject({ type: "TOO_MANY_PIXELS" });
  });

  test("an AVIF whose container understates its size is not decoded", async () => {
    const bytes = await plain(512, 512).avif({ effort: 0 }).toBuffer();
    const size = bytes.indexOf("ispe") + 8;
    bytes.writeUInt32BE(64, size);
    bytes.writeUInt32BE(64, size + 4);
    await expect(new ImagePipeline({ maxPixels: 64 * 64 }).prepare(bytes, frame(32))).rejects.toMatchObject({
      type: "INVALID_IMAGE",
    });
  });

  test("what takes more memory to decode than there is for it is TOO_MANY_PIXELS", async () => {
    const tight = new ImagePipeline({ maxDecodeBytes: 20 * 64 * 64 });
    const deep = await plain(64, 64).avif({ bitdepth: 10, effort: 0 }).toBuffer();
    const error = await refusal(deep, tight);
    expect(error.type).toBe("TOO_MANY_PIXELS");
    expect(error.message).toMatch(/^64×64 pixels take \d+ MiB to decode as this kind of AVIF/);
    const plainest = await plain(64, 64).avif({ chromaSubsampling: "4:2:0", effort: 0 }).toBuffer();
    await expect(tight.inspect(plainest)).resolves.toBeDefined();
  });

  test("a PNG whose text inflates to 320 MiB costs no memory", async () => {
    const text = textChunk("text", 8 * 2 ** 20);
    const png = withChunks(await plain(16, 16).png().toBuffer(), Array(40).fill(text));
    const before = process.memoryUsage.rss();
    await pipeline.inspect(png);
    // The decoder would be ended at 128 MiB.
    await pipeline.prepare(png, frame(16));
    expect(process.memoryUsage.rss() - before).toBeLessThan(100 * 2 ** 20);
  });

  test("a PNG with a wrong checksum in its pixels is INVALID_IMAGE", async () => {
    const png = await photo(60, 40).png().toBuffer();
    await expect(pipeline.prepare(spoil(png, 3000, 1), frame(32))).rejects.toMatchObject({
      type: "INVALID_IMAGE",
    });
  });

  describe.each<[string, (image: Sharp) => Sharp]>([
    ["JPEG", (image) => image.jpeg()],
    ["progressive JPEG", (image) => image.jpeg({ progressive: true })],
    ["PNG", (image) => image.png()],
    ["interlaced PNG", (image) => image.png({ progressive: true })],
    ["WebP", (image) => image.webp()],
    ["lossless WebP", (image) => image.webp({ lossless: true })],
    ["GIF", (image) => image.gif()],
    ["AVIF", (image) => image.avif({ effort: 0 })],
    ["TIFF", (image) => image.tiff({ compression: "lzw" })],
  ])("a truncated %s", (_, encode) => {
    // Of an upright photo the lowest rows are not in the crop: a decoder alone would never miss them.
    test.each([0.02, 0.3, 0.5, 0.9, 0.99])("at %d of its length is INVALID_IMAGE", async (part) => {
      const bytes = await encode(photo(90, 160)).toBuffer();
      const cut = bytes.subarray(0, Math.floor(bytes.length * part));
      await expect(pipeline.prepare(cut, frame(32))).rejects.toMatchObject({ type: "INVALID_IMAGE" });
    });
  });

  test.each([5, 6])("a TIFF of %i channels is INVALID_IMAGE", async (channels) => {
    await expect(pipeline.prepare(tiffOfChannels(16, 16, channels), frame(8))).rejects.toMatchObject({
      type: "INVALID_IMAGE",
    });
    await expect(pipeline.prepare(tiffOfChannels(16, 16, 3), frame(8))).resolves.toContain(100);
  });
});

describe("waiting", () => {
  const busy = { concurrency: 1, maxWaiting: 1 };

  test("the first image over the bound is refused at once, the others are answered", async () => {
    const narrow = new ImagePipeline(busy);
    const bytes = await photo(60, 40).jpeg().toBuffer();
    const all = [1, 2, 3].map(() => narrow.prepare(bytes, frame(16)));
    expect([narrow.active, narrow.waiting]).toEqual([1, 1]);
    await expect(all[2]).rejects.toMatchObject({ type: "QUEUE_FULL", retryable: true });
    await expect(Promise.all(all.slice(0, 2))).resolves.toHaveLength(2);
    expect([narrow.active, narrow.waiting]).toEqual([0, 0]);
  });

  test("a small photo does not wait for large images that came before", async () => {
    // 6324×6324 pixels of one colour, in 38 bytes.
    const large = Buffer.from("UklGRh4AAABXRUJQVlA4TBEAAAAvs9gsBgdQmSKXov+BiOh/AAA=", "base64");
    const small = await photo(60, 40).jpeg().toBuffer();
    // On a busy machine four large ones take longer than an image may.
    const two = new ImagePipeline({ concurrency: 2, timeoutMs: 120_000 });
    await two.start();
    const order: string[] = [];
    const prepare = (name: string, bytes: Buffer) =>
      two.prepare(bytes, frame(16)).then(() => order.push(name));
    await Promise.all([
      ...Array(4)
        .fill(large)
        .map((bytes) => prepare("large", bytes)),
      prepare("small", small),
    ]);
    two.close();
    // The first of the large may be done by then, no other.
    expect(order.indexOf("small")).toBeLessThanOrEqual(1);
  });

  test("an image whose client hung up is not decoded", async () => {
    const narrow = new ImagePipeline(busy);
    const bytes = await photo(60, 40).jpeg().toBuffer();
    const client = new AbortController();
    const first = narrow.prepare(bytes, frame(16));
    const second = narrow.prepare(bytes, frame(16), { signal: client.signal });
    client.abort();
    await expect(second).rejects.toMatchObject({ type: "CANCELLED" });
    expect([narrow.active, narrow.waiting]).toEqual([1, 0]);
    await first;
    await expect(narrow.prepare(bytes, frame(16), { signal: client.signal })).rejects.toMatchObject({
      type: "CANCELLED",
    });
  });

  test("an image past its deadline is not decoded", async () => {
    const bytes = await photo(60, 40).jpeg().toBuffer();
    await expect(pipeline.prepare(bytes, frame(16), { deadline: performance.now() })).rejects.toMatchObject({
      type: "DEADLINE_EXCEEDED",
    });
  });

  test.each([
    ["deadline", {}, 500],
    ["time-out", { timeoutMs: 500 }, 1000],
  ])("an image still waiting at its %s leaves the line", async (_, options, timeLeft) => {
    const bytes = await photo(60, 40).jpeg().toBuffer();
    jest.useFakeTimers({ doNotFake: ["nextTick", "queueMicrotask", "setImmediate"] });
    try {
      const narrow = new ImagePipeline({ ...busy, ...options });
      const first = narrow.prepare(bytes, frame(16)).catch((error) => error);
      const second = narrow
        .prepare(bytes, frame(16), { deadline: performance.now() + timeLeft })
        .catch((error) => error);
      jest.advanceTimersByTime(499);
      await new Promise(setImmediate);
      expect(narrow.waiting).toBe(1);
      jest.advanceTimersByTime(1);
      expect(await second).toMatchObject({ type: "DEADLINE_EXCEEDED" });
      expect(narrow.waiting).toBe(0);
      await first;
    } finally {
      jest.useRealTimers();
    }
  });
});

describe("options", () => {
  test.each([
    ["maxBytes", 0],
    ["maxPixels", 1.5],
    ["concurrency", 0],
    ["maxWaiting", -1],
    ["timeoutMs", 3_600_001],
    ["timeoutMs", Number.NaN],
  ])("%s may not be %d", (name, value) => {
    expect(() => new ImagePipeline({ [name]: value })).toThrow(
      new RegExp(`^Expected an integer from \\d to \\d+ for ${name} but received ${value} of type number$`),
    );
  });
});

function insert(bytes: Buffer, at: number, extra: number[]): Buffer {
  return Buffer.concat([bytes.subarray(0, at), Buffer.from(extra), bytes.subarray(at)]);
}

/** Copies the bytes with `count` of them inverted. */
function spoil(bytes: Buffer, at: number, count: number): Buffer {
  const copy = Buffer.from(bytes);
  for (let i = at; i < at + count; i += 1) copy[i] = (copy[i] ?? 0) ^ 0xff;
  return copy;
}

/**
 * The centre square of an RGB image scaled to `side` by PIL's definition of BILINEAR: a triangle as wide as the
 * scale, sampled at the pixels' centres, its weights normalised; columns, then rows.
 */
function bilinear(pixels: Uint8Array, width: number, height: number, side: number): Float64Array {
  const square = Math.min(width, height);
  const scale = square / side;
  const weights = (start: number, limit: number) =>
    Array.from({ length: side }, (_, i) => {
      const centre = start + (i + 0.5) * scale;
      const first = Math.max(0, Math.ceil(centre - scale - 0.5));
      const taps: [number, number][] = [];
      for (let at = first; at < Math.min(limit, centre + scale - 0.5); at += 1) {
        taps.push([at, 1 - Math.abs(at + 0.5 - centre) / scale]);
      }
      const sum = taps.reduce((total, [, weight]) => total + weight, 0);
      return taps.map(([at, weight]) => [at, weight / sum] as const);
    });
  const across = weights((width - square) / 2, width);
  const down = weights((height - square) / 2, height);
  const rows = new Float64Array(side * height * 3);
  for (let y = 0; y < height; y += 1) {
    across.forEach((taps, x) => {
      for (let c = 0; c < 3; c += 1) {
        rows[(y * side + x) * 3 + c] = taps.reduce(
          (sum, [at, weight]) => sum + weight * (pixels[(y * width + at) * 3 + c] ?? 0),
          0,
        );
      }
    });
  }
  const out = new Float64Array(side * side * 3);
  down.forEach((taps, y) => {
    for (let i = 0; i < side * 3; i += 1) {
      out[y * side * 3 + i] = taps.reduce(
        (sum, [at, weight]) => sum + weight * (rows[at * side * 3 + i] ?? 0),
        0,
      );
    }
  });
  return out;
}
