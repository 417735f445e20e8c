import { ServingError } from "../../errors.ts";
import type { ImageInfo } from "./kind.ts";

export type ImageFormat = ImageInfo["format"];

/**
 * The chunks of a PNG that pixels depend on (specification: https://www.w3.org/TR/png-3/#11Chunks). All others are
 * dropped before libpng sees them: it inflates every text chunk on reading the header, and 300 KB of zTXt become
 * gigabytes of memory; and it warns of each repeated or damaged one, which can hold the event loop for a second.
 */
const PNG_CHUNKS: ReadonlySet<string> = new Set(["IHDR", "PLTE", "tRNS", "iCCP", "eXIf", "IDAT", "IEND"]);
const PNG_SIGNATURE_BYTES = 8;
/** Real files have a chunk for every few kilobytes; this bounds the walk on 10 MiB of empty ones. */
const MAX_PNG_CHUNKS = 50_000;

/**
 * The format by its first bytes, whatever name or content type came with it; undefined for anything else, HEIC,
 * SVG and PDF included. Decoders must never get to guess: some of them read files and addresses.
 */
export function sniffFormat(bytes: Uint8Array): ImageFormat | undefined {
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.byteLength, 512)).toString(
    "latin1",
  );
  if (head.startsWith("\xff\xd8\xff")) return "jpeg";
  if (head.startsWith("\x89PNG\r\n\x1a\n")) return "png";
  if (head.startsWith("RIFF") && head.startsWith("WEBP", 8)) return "webp";
  if (head.startsWith("GIF87a") || head.startsWith("GIF89a")) return "gif";
  if (head.startsWith("II*\0") || head.startsWith("MM\0*")) return "tiff";
  if (head.startsWith("ftyp", 4) && hasAvifBrand(head)) return "avif";
  return undefined;
}

/** `ftyp` box: size, "ftyp", major brand, its version, compatible brands (ISO/IEC 14496-12, §4.3). */
function hasAvifBrand(head: string): boolean {
  const end = Math.min(Buffer.from(head.slice(0, 4), "latin1").readUInt32BE(), head.length);
  for (let at = 8; at + 4 <= end; at += 4) {
    const brand = head.slice(at, at + 4);
    // A HEIC may call itself compatible with anything; its pixels are HEVC all the same.
    if (at === 8 && brand.startsWith("he")) return false;
    if (at !== 12 && (brand === "avif" || brand === "avis")) return true;
  }
  return false;
}

/**
 * The bytes a decoder may have. JPEG and PNG must reach their end marker: decoders stop at the last row that the
 * crop needs, so a file that was cut off would be refused for one model's frame and accepted for another's. The other
 * formats state their length up front and their decoders check it. Of a PNG only what its pixels depend on is kept.
 *
 * @throws {ServingError} INVALID_IMAGE
 */
export function decodableBytes(bytes: Uint8Array, format: ImageFormat): Uint8Array {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (format === "jpeg") assertJpegEnds(buffer);
  return format === "png" ? essentialPng(buffer) : bytes;
}

/**
 * End Of Image comes after Start Of Scan (ITU-T T.81, annex B). Looking only behind the scan's start ignores the
 * complete JPEG that an EXIF thumbnail is; in the scan itself FF D9 cannot occur. Trailing bytes are common and
 * harmless.
 */
function assertJpegEnds(buffer: Buffer): void {
  for (let at = 2; at + 4 <= buffer.length; ) {
    if (buffer[at] !== 0xff) {
      at += 1; // Stray bytes between segments: decoders skip them, too.
      continue;
    }
    const marker = buffer[at + 1] ?? 0;
    if (marker === 0xda) {
      if (buffer.lastIndexOf("\xff\xd9", undefined, "latin1") > at) return;
      break;
    }
    // FF is padding; 00, 01, RSTn and SOI stand alone; every other marker has a length.
    if (marker === 0xff) at += 1;
    else if (marker <= 0x01 || (marker >= 0xd0 && marker <= 0xd8)) at += 2;
    else at += 2 + buffer.readUInt16BE(at + 2);
  }
  throw cutShort("jpeg");
}

/** Each kept chunk once, but for the pixels' own (IDAT), which stand in a row. */
function essentialPng(buffer: Buffer): Buffer {
  const kept = [buffer.subarray(0, PNG_SIGNATURE_BYTES)];
  const seen = new Set<string>();
  let at = PNG_SIGNATURE_BYTES;
  for (let count = 0; count < MAX_PNG_CHUNKS && at + 12 <= buffer.length; count += 1) {
    const end = at + 12 + buffer.readUInt32BE(at);
    if (end > buffer.length) break;
    const type = buffer.toString("latin1", at + 4, at + 8);
    if (type === "IDAT" || (PNG_CHUNKS.has(type) && !seen.has(type))) kept.push(buffer.subarray(at, end));
    if (type === "IEND") return Buffer.concat(kept);
    seen.add(type);
    at = end;
  }
  throw cutShort("png");
}

function cutShort(format: ImageFormat): ServingError {
  return new ServingError("INVALID_IMAGE", `The ${format.toUpperCase()} is damaged or cut short`);
}
