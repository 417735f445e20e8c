import { BOUNDS } from "./bounds.ts";
import { Cursor, damaged, tooMany, unsupported } from "./cursor.ts";
import { asOrientation } from "./exif.ts";
import { walkJpeg } from "./jpeg.ts";
import { harmlessProfile } from "./profile.ts";
import type { Screened } from "./screened.ts";

const FORMAT = "TIFF";
const HEADER_BYTES = 8;
const ENTRY_BYTES = 12;

/** Tags that we read (TIFF 6.0, §8; ICC.1 annex B.4). */
const TAG = {
  width: 256,
  height: 257,
  bits: 258,
  compression: 259,
  photometric: 262,
  stripOffsets: 273,
  orientation: 274,
  samples: 277,
  rowsPerStrip: 278,
  stripBytes: 279,
  planes: 284,
  tileWidth: 322,
  tileHeight: 323,
  tileOffsets: 324,
  tileBytes: 325,
  jpegTables: 347,
  profile: 34675,
} as const;

/**
 * The tags that pixels depend on: those above, and fill order, predictor, colour map, ink set, extra samples, sample
 * format, and how colour is subsampled and scaled. libtiff gets to see no other.
 */
const KEPT: ReadonlySet<number> = new Set([
  ...Object.values(TAG),
  266,
  292,
  293,
  317,
  320,
  332,
  338,
  339,
  529,
  530,
  531,
  532,
]);

/** Size in bytes of a value by its type. */
const TYPE_BYTES = [0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8];
const SHORT = 3;
const LONG = 4;

const JPEG_COMPRESSION = 7;
/** None, CCITT (three kinds), LZW, JPEG, deflate (two numbers), PackBits. */
const COMPRESSIONS: ReadonlySet<number> = new Set([1, 2, 3, 4, 5, JPEG_COMPRESSION, 8, 32946, 32773]);
/** White or black is zero, RGB, palette, mask, CMYK, YCbCr, CIE L*a*b*. */
const PHOTOMETRICS: ReadonlySet<number> = new Set([0, 1, 2, 3, 4, 5, 6, 8]);
const DEPTHS: ReadonlySet<number> = new Set([1, 2, 4, 8, 16, 32]);
/** CMYK and alpha. */
const MAX_SAMPLES = 5;

/** For each pixel, and for each of its bytes. */
const PIXEL_MS = 8e-6;
const BYTE_MS = 4e-6;
/** Of a strip or tile: one more has its own start-up, of a decompressor or JPEG decoder. */
const BLOCK_MS = 5e-3;

interface Entry {
  readonly tag: number;
  readonly type: number;
  readonly count: number;
  /** The values' bytes, wherever in the file they are. */
  readonly data: Buffer;
  /** The entry as it stands in the file. */
  readonly raw: Buffer;
}

/**
 * A TIFF as its decoder may see it: the file with a directory behind it that holds the first page, what its pixels
 * depend on, and no page after it.
 */
export function screenTiff(bytes: Buffer): Screened {
  const littleEndian = bytes[0] === 0x49;
  const first = new Cursor(bytes, FORMAT, { at: 4, littleEndian }).u32();
  const page = new Page(bytes, littleEndian, first);
  const [width, height] = [page.value(TAG.width), page.value(TAG.height)];
  if (width === 0 || height === 0) throw damaged(FORMAT);
  const compression = page.value(TAG.compression, 1);
  if (!COMPRESSIONS.has(compression)) throw unsupported(FORMAT, `compression ${compression}`);
  const photometric = page.value(TAG.photometric, 1);
  if (!PHOTOMETRICS.has(photometric)) throw unsupported(FORMAT, `colours ${photometric}`);
  const [bits, samples] = [page.value(TAG.bits, 1), page.value(TAG.samples, 1)];
  if (!DEPTHS.has(bits) || samples < 1 || samples > MAX_SAMPLES) {
    throw unsupported(FORMAT, `${samples} channels of ${bits} bits`);
  }
  const pixelBytes = (bits * samples) / 8;
  const { blocks, blockBytes, offsets, sizes } = layout(page, width, height, pixelBytes);
  if (blocks > BOUNDS.tiffBlocks || offsets.length > BOUNDS.tiffBlocks)
    throw tooMany(FORMAT, "strips or tiles");
  if (blockBytes > BOUNDS.tiffBlockBytes) throw unsupported(FORMAT, "strips or tiles too large");
  // Blocks that lie upon each other would be read as often as there are.
  if (sizes.length === 0 || sizes.reduce((sum, size) => sum + size, 0) > bytes.length) throw damaged(FORMAT);
  if (compression === JPEG_COMPRESSION) {
    assertTables(page.entry(TAG.jpegTables)?.data);
    offsets.forEach((offset, i) => {
      assertPlainJpeg(bytes.subarray(offset, offset + (sizes[i] ?? 0)));
    });
  }
  return {
    width,
    height,
    orientation: asOrientation(page.value(TAG.orientation, 1)),
    pixels: width * height,
    pixelBytes,
    memoryBytes: blockBytes * 2,
    expectedMs: width * height * (PIXEL_MS + pixelBytes * BYTE_MS) + blocks * BLOCK_MS,
    parts: () => page.alone(),
  };
}

interface Layout {
  /** Strips or tiles that the picture consists of. */
  readonly blocks: number;
  /** Of the largest, decoded. */
  readonly blockBytes: number;
  readonly offsets: readonly number[];
  readonly sizes: readonly number[];
}

function layout(page: Page, width: number, height: number, pixelBytes: number): Layout {
  const tileWidth = page.value(TAG.tileWidth);
  if (tileWidth > 0) {
    const tileHeight = page.value(TAG.tileHeight);
    if (tileHeight === 0) throw damaged(FORMAT);
    return {
      blocks: Math.ceil(width / tileWidth) * Math.ceil(height / tileHeight),
      // libvips puts a row of tiles together.
      blockBytes: Math.ceil(width / tileWidth) * tileWidth * tileHeight * pixelBytes,
      offsets: page.values(TAG.tileOffsets),
      sizes: page.values(TAG.tileBytes),
    };
  }
  const rows = Math.min(height, page.value(TAG.rowsPerStrip, height));
  if (rows === 0) throw damaged(FORMAT);
  return {
    blocks: Math.ceil(height / rows),
    blockBytes: width * rows * pixelBytes,
    offsets: page.values(TAG.stripOffsets),
    sizes: page.values(TAG.stripBytes),
  };
}

/** The first page's directory. */
class Page {
  readonly #bytes: Buffer;
  readonly #littleEndian: boolean;
  readonly #entries = new Map<number, Entry>();

  constructor(bytes: Buffer, littleEndian: boolean, at: number) {
    this.#bytes = bytes;
    this.#littleEndian = littleEndian;
    const cursor = new Cursor(bytes, FORMAT, { at, littleEndian });
    const count = cursor.u16();
    if (count > BOUNDS.tiffEntries) throw tooMany(FORMAT, "entries");
    for (let i = 0; i < count; i += 1) {
      const raw = cursor.take(ENTRY_BYTES);
      const entry = new Cursor(raw, FORMAT, { littleEndian });
      const [tag, type, values] = [entry.u16(), entry.u16(), entry.u32()];
      if (!KEPT.has(tag) || this.#entries.has(tag)) continue;
      const length = (TYPE_BYTES[type] ?? 0) * values;
      const data =
        length <= 4
          ? raw.subarray(8, 8 + length)
          : new Cursor(bytes, FORMAT, { at: entry.u32(), littleEndian }).take(length);
      this.#entries.set(tag, { tag, type, count: values, data, raw });
    }
  }

  entry(tag: number): Entry | undefined {
    return this.#entries.get(tag);
  }

  /** The first value of a tag. */
  value(tag: number, fallback = 0): number {
    const [value = fallback] = this.values(tag, 1);
    return value;
  }

  /** The values of a tag that holds SHORTs or LONGs, at most one more than a picture may have blocks. */
  values(tag: number, most: number = BOUNDS.tiffBlocks + 1): number[] {
    const { type, count, data } = this.entry(tag) ?? { type: LONG, count: 0, data: Buffer.alloc(0) };
    if (type !== SHORT && type !== LONG) throw damaged(FORMAT);
    const cursor = new Cursor(data, FORMAT, { littleEndian: this.#littleEndian });
    return Array.from({ length: Math.min(count, most) }, () =>
      type === SHORT ? cursor.u16() : cursor.u32(),
    );
  }

  /** The file with this page in a directory of its own behind it, and no other to be found. */
  alone(): Buffer[] {
    const profile = this.#entries.get(TAG.profile);
    const harmless = profile && harmlessProfile(profile.data);
    const entries = [...this.#entries.values()]
      .filter(({ tag }) => tag !== TAG.profile || harmless)
      .sort((a, b) => a.tag - b.tag);
    const end = this.#bytes.length + (this.#bytes.length & 1);
    const directory = Buffer.alloc(2 + entries.length * ENTRY_BYTES + 4);
    this.#writeU16(directory, entries.length, 0);
    entries.forEach(({ raw }, i) => {
      raw.copy(directory, 2 + i * ENTRY_BYTES);
    });
    const profileAt = end + directory.length;
    if (harmless) {
      const at = 2 + entries.findIndex(({ tag }) => tag === TAG.profile) * ENTRY_BYTES + 8;
      this.#writeU32(directory, profileAt, at);
    }
    const header = Buffer.from(this.#bytes.subarray(0, HEADER_BYTES));
    this.#writeU32(header, end, 4);
    return [
      header,
      this.#bytes.subarray(HEADER_BYTES),
      Buffer.alloc(end - this.#bytes.length),
      directory,
      ...(harmless ? [harmless] : []),
    ];
  }

  #writeU16(target: Buffer, value: number, at: number): void {
    if (this.#littleEndian) target.writeUInt16LE(value, at);
    else target.writeUInt16BE(value, at);
  }

  #writeU32(target: Buffer, value: number, at: number): void {
    if (this.#littleEndian) target.writeUInt32LE(value, at);
    else target.writeUInt32BE(value, at);
  }
}

/** A JPEG in a TIFF is baseline (Adobe Photoshop TIFF Technical Notes, 2002): each component in one scan. */
function assertPlainJpeg(strip: Buffer): void {
  const { frame, scans } = walkJpeg(strip);
  if (!frame || frame.progressive || scans > frame.components.length) throw damaged(FORMAT);
}

/** Quantisation and Huffman tables that all strips share; no picture. */
function assertTables(tables: Buffer | undefined): void {
  if (!tables) return;
  const { frame, scans } = walkJpeg(tables);
  if (frame || scans > 0) throw damaged(FORMAT);
}
