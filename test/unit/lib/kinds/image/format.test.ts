import { decodableBytes, sniffFormat } from "../../../../../lib/kinds/image/format.ts";
import { photo, plain, pngChunk, textChunk, withChunks } from "./samples.ts";

const box = (...brands: string[]) => {
  const body = Buffer.from(`ftyp${brands[0]}\0\0\0\0${brands.slice(1).join("")}`, "latin1");
  const size = Buffer.alloc(4);
  size.writeUInt32BE(body.length + 4);
  return Buffer.concat([size, body]);
};

describe("sniffFormat", () => {
  test.each([
    ["jpeg", () => photo(20, 20).jpeg()],
    ["png", () => photo(20, 20).png()],
    ["webp", () => photo(20, 20).webp()],
    ["gif", () => photo(20, 20).gif()],
    ["avif", () => photo(20, 20).avif()],
    ["tiff", () => photo(20, 20).tiff()],
  ])("knows a %s", async (format, make) => {
    expect(sniffFormat(await make().toBuffer())).toBe(format);
  });

  test("knows a big-endian TIFF", () => {
    expect(sniffFormat(Buffer.from("MM\0*\0\0\0\x08", "latin1"))).toBe("tiff");
  });

  test("finds AVIF among the compatible brands", () => {
    expect(sniffFormat(box("mif1", "miaf", "avif"))).toBe("avif");
    expect(sniffFormat(box("avis"))).toBe("avif");
  });

  test.each([
    ["HEIC", box("heic", "mif1", "heic")],
    ["HEIC that claims to be compatible with AVIF", box("heic", "avif")],
    ["a version field that reads avif", Buffer.from("\0\0\0\x14ftypmif1avifmiaf", "latin1")],
    ["an AVIF brand outside of its box", Buffer.concat([box("mif1", "miaf"), Buffer.from("avif")])],
    ["MP4", box("isom", "mp41")],
    ["BMP", Buffer.from("BM\x36\0\0\0\0\0\0\0")],
    ["PDF", Buffer.from("%PDF-1.7\n")],
    ["zip", Buffer.from("PK\x03\x04aaaaaaaaaa")],
    ["RIFF of another kind", Buffer.from("RIFF\x10\0\0\0WAVEfmt ")],
    ["SVG", Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"/>')],
    ["one byte", Buffer.from([0xff])],
    ["nothing", Buffer.alloc(0)],
  ])("does not know %s", (_, bytes) => {
    expect(sniffFormat(bytes)).toBeUndefined();
  });

  test("looks at the view's bytes, not at the whole buffer", async () => {
    const png = await plain(4, 4).png().toBuffer();
    const around = Buffer.concat([Buffer.from("junk"), png, Buffer.from("junk")]);
    expect(sniffFormat(around.subarray(4, 4 + png.length))).toBe("png");
    expect(sniffFormat(around)).toBeUndefined();
  });
});

describe("decodableBytes", () => {
  const refusal = expect.objectContaining({ type: "INVALID_IMAGE" });

  test("passes a JPEG with trailing bytes", async () => {
    const jpeg = Buffer.concat([await photo(40, 30).jpeg().toBuffer(), Buffer.from("trailing")]);
    expect(decodableBytes(jpeg, "jpeg")).toBe(jpeg);
  });

  test("passes a JPEG with stray and padding bytes between its segments", async () => {
    const jpeg = await photo(40, 30).jpeg().toBuffer();
    const dirty = Buffer.concat([jpeg.subarray(0, 2), Buffer.from([0, 1, 0xff, 0xff]), jpeg.subarray(2)]);
    expect(decodableBytes(dirty, "jpeg")).toBe(dirty);
  });

  test("is not taken in by the complete thumbnail of a JPEG that was cut off", async () => {
    const thumbnail = await plain(8, 8).jpeg().toBuffer();
    const jpeg = await photo(40, 30).jpeg().toBuffer();
    const segment = Buffer.concat([Buffer.from([0xff, 0xe1, 0, 0]), thumbnail]);
    segment.writeUInt16BE(segment.length - 2, 2);
    const whole = Buffer.concat([jpeg.subarray(0, 2), segment, jpeg.subarray(2)]);
    expect(decodableBytes(whole, "jpeg")).toBe(whole);
    expect(() => decodableBytes(whole.subarray(0, -40), "jpeg")).toThrow(refusal);
  });

  test("refuses a JPEG without a scan, and one whose segment ends behind the file", () => {
    expect(() => decodableBytes(Buffer.from([0xff, 0xd8, 0xff, 0xd9, 0, 0]), "jpeg")).toThrow(refusal);
    expect(() => decodableBytes(Buffer.from([0xff, 0xd8, 0xff, 0xe0, 0xff, 0xff, 0]), "jpeg")).toThrow(
      refusal,
    );
  });

  test("keeps of a PNG what its pixels depend on, once", async () => {
    const png = await plain(4, 4).withIccProfile("p3").png({ palette: true }).toBuffer();
    const extra = [textChunk("a", 1000), pngChunk("gAMA", Buffer.alloc(4)), png.subarray(8, 33)];
    const stripped = Buffer.from(decodableBytes(withChunks(png, extra), "png")).toString("latin1");
    expect(stripped.match(/IHDR|PLTE|iCCP|IDAT|IEND|gAMA|zTXt|pHYs/g)).toEqual([
      "IHDR",
      "iCCP",
      "PLTE",
      "IDAT",
      "IEND",
    ]);
  });

  test.each([1, 12, 30])("refuses a PNG that lacks its last %i bytes", async (missing) => {
    const png = await plain(4, 4).png().toBuffer();
    expect(() => decodableBytes(png.subarray(0, -missing), "png")).toThrow(refusal);
  });

  test("refuses a PNG of tens of thousands of chunks", async () => {
    const png = await plain(4, 4).png().toBuffer();
    const empty = pngChunk("IDAT", Buffer.alloc(0));
    expect(() => decodableBytes(withChunks(png, Array(60_000).fill(empty)), "png")).toThrow(refusal);
  });
});
