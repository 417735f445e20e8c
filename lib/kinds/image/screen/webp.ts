import { BOUNDS } from "./bounds.ts";
import { Cursor, damaged } from "./cursor.ts";
import { exifOf, type Orientation, orientationOf } from "./exif.ts";
import { harmlessProfile } from "./profile.ts";
import type { Screened } from "./screened.ts";

const FORMAT = "WebP";

/** Flags of VP8X (RFC 9649, §2.7). */
const HAS_PROFILE = 0x20;
const HAS_ALPHA = 0x10;
const HAS_EXIF = 0x08;
const IS_ANIMATED = 0x02;

/** The picture, and what libvips makes of it: four bytes for each pixel. */
const PIXEL_BYTES = 8;
const PIXEL_MS = 36e-6;

/**
 * A WebP as its decoder may see it: the one picture or the first frame of an animation, its colour profile made
 * harmless, its orientation. Behind the first frame only an orientation is looked for, and not for ever.
 */
export function screenWebp(bytes: Buffer): Screened {
  const size = new Cursor(bytes, FORMAT, { at: 4, littleEndian: true }).u32();
  if (size + 8 > bytes.length + (size & 1)) throw damaged(FORMAT);
  const cursor = new Cursor(bytes.subarray(0, size + 8), FORMAT, { at: 12, littleEndian: true });
  const kept = new Map<string, Buffer>();
  let orientation: Orientation | undefined;
  let profile: Buffer | undefined;
  for (let count = 0; cursor.left >= 8 && count < BOUNDS.webpChunks; count += 1) {
    const [type, length] = [cursor.tag(), cursor.u32()];
    const pictureSeen = kept.has("VP8 ") || kept.has("VP8L") || kept.has("ANMF");
    if (pictureSeen && length > cursor.left) break;
    const content = cursor.take(length);
    if (length & 1) cursor.skip(Math.min(1, cursor.left));
    if (type === "EXIF") orientation ??= orientationOf(content);
    else if (type === "ICCP") profile ??= harmlessProfile(content);
    else if (PICTURE.has(type) && !kept.has(type)) kept.set(type, content);
    // A simple file is its picture; a second one is not looked at.
    if (!kept.has("VP8X") && (type === "VP8 " || type === "VP8L")) break;
  }
  const extended = kept.get("VP8X");
  const animated = extended !== undefined && ((extended[0] ?? 0) & IS_ANIMATED) !== 0;
  const picture = animated ? kept.get("ANMF") : (kept.get("VP8L") ?? kept.get("VP8 "));
  if (!picture || (animated && !kept.has("ANIM"))) throw damaged(FORMAT);
  const frame = animated ? frameSize(picture) : pictureSize(picture, kept.has("VP8L"));
  const canvas = extended ? canvasSize(extended) : frame;
  const pixels = Math.max(canvas.width * canvas.height, frame.width * frame.height);
  return {
    ...canvas,
    orientation: orientation ?? 1,
    pixels,
    pixelBytes: 4,
    memoryBytes: pixels * PIXEL_BYTES,
    expectedMs: pixels * PIXEL_MS,
    parts: () => riff(kept, extended, animated, orientation ?? 1, profile),
  };
}

/** In the order in which they must stand. */
const PICTURE: ReadonlySet<string> = new Set(["VP8X", "ANIM", "ANMF", "ALPH", "VP8 ", "VP8L"]);

function riff(
  kept: ReadonlyMap<string, Buffer>,
  extended: Buffer | undefined,
  animated: boolean,
  orientation: Orientation,
  profile: Buffer | undefined,
): Buffer[] {
  const parts: Buffer[] = [];
  if (extended) {
    const header = Buffer.from(extended);
    header[0] =
      ((header[0] ?? 0) & (HAS_ALPHA | IS_ANIMATED)) |
      (profile ? HAS_PROFILE : 0) |
      (orientation === 1 ? 0 : HAS_EXIF);
    parts.push(...chunk("VP8X", header));
    if (profile) parts.push(...chunk("ICCP", profile));
  }
  for (const type of animated ? ["ANIM", "ANMF"] : ["ALPH", "VP8 ", "VP8L"]) {
    const content = kept.get(type);
    if (content) parts.push(...chunk(type, content));
  }
  if (extended && orientation !== 1) parts.push(...chunk("EXIF", exifOf(orientation)));
  const header = Buffer.from("RIFF\0\0\0\0WEBP", "latin1");
  header.writeUInt32LE(
    parts.reduce((sum, part) => sum + part.length, 4),
    4,
  );
  return [header, ...parts];
}

function chunk(type: string, content: Buffer): Buffer[] {
  const header = Buffer.alloc(8);
  header.write(type, "latin1");
  header.writeUInt32LE(content.length, 4);
  return [header, content, Buffer.alloc(content.length & 1)];
}

interface Size {
  readonly width: number;
  readonly height: number;
}

function canvasSize(extended: Buffer): Size {
  if (extended.length < 10) throw damaged(FORMAT);
  return { width: extended.readUIntLE(4, 3) + 1, height: extended.readUIntLE(7, 3) + 1 };
}

/** Of an ANMF chunk: its own, and that of the picture in it must not be larger. */
function frameSize(frame: Buffer): Size {
  if (frame.length < 16) throw damaged(FORMAT);
  const stated = { width: frame.readUIntLE(6, 3) + 1, height: frame.readUIntLE(9, 3) + 1 };
  const cursor = new Cursor(frame, FORMAT, { at: 16, littleEndian: true });
  // ALPH, then VP8; or VP8L.
  for (let count = 0; count < 2; count += 1) {
    const [type, length] = [cursor.tag(), cursor.u32()];
    const content = cursor.take(length);
    if (length & 1) cursor.skip(Math.min(1, cursor.left));
    if (type !== "VP8 " && type !== "VP8L") continue;
    const { width, height } = pictureSize(content, type === "VP8L");
    if (width !== stated.width || height !== stated.height) throw damaged(FORMAT);
    return stated;
  }
  throw damaged(FORMAT);
}

/** Of the bitstream: RFC 6386, §9.1; RFC 9649, §3.4. */
function pictureSize(picture: Buffer, lossless: boolean): Size {
  if (picture.length < (lossless ? 5 : 10)) throw damaged(FORMAT);
  if (lossless) {
    const bits = picture.readUInt32LE(1);
    return { width: (bits & 0x3fff) + 1, height: ((bits >>> 14) & 0x3fff) + 1 };
  }
  return { width: picture.readUInt16LE(6) & 0x3fff, height: picture.readUInt16LE(8) & 0x3fff };
}
