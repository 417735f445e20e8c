import { sniffFormat } from "../../../../../lib/kinds/image/format.ts";
import { photo, plain } from "./samples.ts";

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
