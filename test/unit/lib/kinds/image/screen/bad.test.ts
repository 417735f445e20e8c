import { sniffFormat } from "../../../../../../lib/kinds/image/format.ts";
import { screen } from "../../../../../../lib/kinds/image/screen/screen.ts";
import {
  box,
  elementsProfile,
  jpegTiff,
  manyGifFrames,
  manyScans,
  manySegments,
  manyTiffPages,
  manyTiffTiles,
  manyWebpFrames,
  pngChunk,
  profileChunk,
  profileSegments,
  riff,
  riffChunk,
  segment,
  tiffOf,
  withChunks,
  withSegments,
} from "../../../../../../testkit/hostile-images.ts";
import { photo, plain, textChunk } from "../samples.ts";

function screened(bytes: Buffer) {
  const format = sniffFormat(bytes);
  if (!format) throw new Error("of no known format");
  const found = screen(bytes, format);
  return { ...found, data: () => Buffer.concat(found.parts()) };
}

const refusal = (message: string | RegExp) =>
  expect.objectContaining({ type: "INVALID_IMAGE", message: expect.stringMatching(message) });

function expectRefused(bytes: Buffer, message: string | RegExp): void {
  expect(() => screened(bytes)).toThrow(refusal(message) as never);
}

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("latin1");

describe("a JPEG", () => {
  test("loses trailing bytes and what is between its segments", async () => {
    const jpeg = await photo(40, 30).jpeg().toBuffer();
    const plainData = screened(jpeg).data();
    const dirty = Buffer.concat([
      jpeg.subarray(0, 2),
      segment(0xfe, Buffer.from("a comment")),
      Buffer.from([0, 1, 0xff, 0xff]),
      segment(0xed, Buffer.from("Photoshop")),
      jpeg.subarray(2),
      Buffer.from("trailing"),
    ]);
    expect(screened(dirty).data()).toEqual(plainData);
  });

  test("is not taken in by the complete thumbnail of one that was cut off", async () => {
    const thumbnail = await plain(8, 8).jpeg().toBuffer();
    const whole = withSegments(await photo(40, 30).jpeg().toBuffer(), [segment(0xe1, thumbnail)]);
    expect(screened(whole)).toMatchObject({ width: 40, height: 30 });
    expectRefused(whole.subarray(0, -40), "cut short");
  });

  test.each([
    ["without a scan", Buffer.from([0xff, 0xd8, 0xff, 0xd9, 0, 0])],
    ["whose segment ends behind the file", Buffer.from([0xff, 0xd8, 0xff, 0xe0, 0xff, 0xff, 0])],
    ["whose segment is shorter than its length field", Buffer.from([0xff, 0xd8, 0xff, 0xe0, 0, 1, 0, 0])],
    ["with two frames", withSegments(manyScans(8, 8, 1), [manyScans(8, 8, 1).subarray(2, -2)])],
  ])("%s is refused", (_, bytes) => {
    expectRefused(bytes, "cut short");
  });

  test("may have the scans of one, not of hundreds", () => {
    expect(screened(manyScans(400, 400, 40)).memoryBytes).toBe(3 * 50 * 50 * 64 * 2);
    expectRefused(manyScans(8, 8, 101), "more scans");
  });

  test("of 40 megapixels may be gone over five times", () => {
    expectRefused(manyScans(6324, 6324, 30), "more scans");
    expect(screened(manyScans(6324, 6324, 12)).expectedMs).toBeGreaterThan(500);
  });

  test("in arithmetic coding, lossless or of 12 bits is refused", () => {
    expectRefused(manyScans(8, 8, 2, { arithmetic: true }), "arithmetic coding");
    const jpeg = manyScans(8, 8, 1);
    const frame = jpeg.indexOf("\xff\xc2", "latin1");
    const changed = (at: number, value: number) => {
      const copy = Buffer.from(jpeg);
      copy[at] = value;
      return copy;
    };
    expectRefused(changed(frame + 1, 0xc3), "lossless");
    expectRefused(changed(frame + 4, 12), "12 bits");
  });

  test("of millions of segments is refused", async () => {
    expectRefused(await manySegments(2_600_000), "more segments");
  });
});

describe("a PNG", () => {
  test("keeps what its pixels depend on, once", async () => {
    const png = await plain(4, 4).withIccProfile("p3").png({ palette: true }).toBuffer();
    const extra = [textChunk("a", 1000), pngChunk("gAMA", Buffer.alloc(4)), png.subarray(8, 33)];
    const kept = text(screened(withChunks(png, extra)).data());
    expect(kept.match(/IHDR|PLTE|iCCP|IDAT|IEND|gAMA|zTXt|pHYs|eXIf/g)).toEqual([
      "IHDR",
      "iCCP",
      "PLTE",
      "IDAT",
      "IEND",
    ]);
  });

  test.each([1, 12, 30])("that lacks its last %i bytes is refused", async (missing) => {
    expectRefused((await plain(4, 4).png().toBuffer()).subarray(0, -missing), "cut short");
  });

  test("of tens of thousands of chunks is refused", async () => {
    const empty = pngChunk("IDAT", Buffer.alloc(0));
    expectRefused(withChunks(await plain(4, 4).png().toBuffer(), Array(60_000).fill(empty)), "more chunks");
  });

  test("of 16 bits counts 8 bytes a pixel if it is interlaced", async () => {
    const deep = plain(64, 64, { r: 1, g: 2, b: 3, alpha: 0.5 }).toColourspace("rgb16");
    expect(screened(await deep.png({ progressive: true }).toBuffer()).memoryBytes).toBe(64 * 64 * 8);
  });

  test("loses a profile that inflates to 100 MiB, and one that is broken", async () => {
    const png = await plain(4, 4).png().toBuffer();
    const bomb = profileChunk(Buffer.alloc(100 * 2 ** 20));
    const broken = pngChunk("iCCP", Buffer.from("name\0\0not deflate"));
    for (const profile of [bomb, broken]) {
      expect(text(screened(withChunks(png, [profile])).data())).not.toContain("iCCP");
    }
  });
});

test.each([
  [
    "PNG",
    async () => withChunks(await plain(4, 4).png().toBuffer(), [profileChunk(elementsProfile(12_000))]),
  ],
  [
    "JPEG",
    async () => withSegments(await plain(4, 4).jpeg().toBuffer(), profileSegments(elementsProfile(1_300))),
  ],
])("of a %s with a profile of thousands of steps, none is left", async (_, make) => {
  const left = text(screened(await make()).data());
  expect(left).toContain("rTRC");
  expect(left).not.toContain("D2B0");
});

test("a file of thousands of parts between junk is sent as one", async () => {
  const png = await plain(4, 4).png().toBuffer();
  const pair = [pngChunk("IDAT", Buffer.alloc(0)), pngChunk("tEXt", Buffer.from("a"))];
  expect(screened(withChunks(png, Array(5_000).fill(pair).flat())).parts()).toHaveLength(1);
  expect(screened(png).parts().length).toBeLessThan(4);
});

describe("of frames and pages only the first is left", () => {
  test.each([
    ["WebP of 140,000 frames", () => manyWebpFrames(140_000)],
    ["GIF of 500,000 frames", () => manyGifFrames(500_000)],
  ])("%s", async (_, make) => {
    const { width, height, data } = screened(await make());
    expect([width, height]).toEqual([1, 1]);
    expect(data().byteLength).toBeLessThan(200);
  });

  test("TIFF of 90,000 pages", () => {
    const data = screened(manyTiffPages(90_000)).data();
    const directory = Buffer.from(data).readUInt32LE(4);
    const entries = Buffer.from(data).readUInt16LE(directory);
    expect(Buffer.from(data).readUInt32LE(directory + 2 + entries * 12)).toBe(0);
  });
});

describe("a WebP", () => {
  test("whose frame holds a larger picture than it says is refused", async () => {
    const large = await plain(64, 64).webp({ lossless: true }).toBuffer();
    const frame = riffChunk("ANMF", Buffer.concat([Buffer.alloc(16), large.subarray(12)]));
    const header = riffChunk("VP8X", Buffer.from([2, ...Array(9).fill(0)]));
    expectRefused(riff([header, riffChunk("ANIM", Buffer.alloc(6)), frame]), "cut short");
  });

  test("without a picture is refused, however many chunks it has", () => {
    expectRefused(riff(Array(100_000).fill(riffChunk("junk", Buffer.alloc(2)))), "cut short");
  });
});

describe("a GIF", () => {
  test("of comments without end is refused", async () => {
    const gif = await plain(4, 4).gif().toBuffer();
    const comment = Buffer.from([0x21, 0xfe, ...Array(60_000).fill([1, 65]).flat(), 0]);
    const at = gif.indexOf(0x2c, 13);
    expectRefused(Buffer.concat([gif.subarray(0, at), comment, gif.subarray(at)]), "more blocks");
  });
});

describe("a TIFF", () => {
  test("whose tiles are the same bytes again and again is refused", () => {
    expectRefused(manyTiffTiles(6324, 6324, 16), "cut short");
  });

  test("of more tiles than 40 megapixels have is refused", () => {
    expectRefused(manyTiffTiles(6324, 6324, 8), "more strips or tiles");
  });

  test("that is one tile of gigabytes is refused", () => {
    expectRefused(manyTiffTiles(6324, 6324, 2 ** 16), "too large");
  });

  test("with a progressive JPEG in its strips is refused", () => {
    expectRefused(jpegTiff(64, 64, manyScans(64, 64, 90), 64), "cut short");
  });

  test("of a compression that we do not know is refused", () => {
    expectRefused(
      tiffOf(Buffer.alloc(1), [
        [
          [256, 3, [1]],
          [257, 3, [1]],
          [259, 3, [34712]],
          [273, 4, [8]],
          [279, 4, [1]],
        ],
      ]),
      "compression 34712",
    );
  });

  test("that is a loop is read once", () => {
    const page = manyTiffPages(1);
    const next = page.length - 4;
    page.writeUInt32LE(page.readUInt32LE(4), next);
    expect(screened(page)).toMatchObject({ width: 1, height: 1 });
  });
});

describe("an AVIF", () => {
  const sample = () =>
    plain(64, 64, { r: 200, g: 50, b: 20, alpha: 0.5 }).avif({ bitdepth: 10, effort: 0 }).toBuffer();

  test("counts memory by depth and alpha", async () => {
    const deep = screened(await sample()).memoryBytes;
    const plainest = screened(
      await plain(64, 64).avif({ effort: 0, chromaSubsampling: "4:2:0" }).toBuffer(),
    ).memoryBytes;
    expect(deep / (64 * 64)).toBeGreaterThan(25);
    expect(plainest / (64 * 64)).toBeGreaterThan(16);
    expect(plainest / (64 * 64)).toBeLessThan(19);
  });

  test("whose container understates its size is refused", async () => {
    const bytes = await sample();
    const size = bytes.indexOf("ispe") + 8;
    bytes.writeUInt32BE(32, size);
    expectRefused(bytes, "cut short");
  });

  test("loses metadata and everything that is not the image", async () => {
    const bytes = await plain(64, 64)
      .withExif({ IFD0: { Artist: "nobody" } })
      .avif({ effort: 0 })
      .toBuffer();
    const film = Buffer.concat([bytes, box("moov", Buffer.alloc(100))]);
    expect(text(film)).toContain("Exif");
    expect(text(screened(film).data())).not.toMatch(/infe.{8}Exif|moov/s);
  });

  test("of thousands of boxes is refused", async () => {
    expectRefused(Buffer.concat([await sample(), ...Array(3_000).fill(box("free"))]), "more boxes");
  });

  test("of many frames is refused", async () => {
    const bytes = await sample();
    // The whole of the file behind `mdat` as items of ten empty frames each: what counts is the units' headers.
    const data = bytes.indexOf("mdat") + 4;
    const frames = Buffer.alloc(bytes.length - data, Buffer.from([0x32, 0]));
    expectRefused(Buffer.concat([bytes.subarray(0, data), frames]), /more frames/);
  });
});
