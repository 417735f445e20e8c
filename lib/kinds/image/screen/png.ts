import { crc32, deflateSync, inflateSync } from "node:zlib";
import { BOUNDS } from "./bounds.ts";
import { Cursor, damaged, tooMany } from "./cursor.ts";
import { exifOf, type Orientation, orientationOf } from "./exif.ts";
import { harmlessProfile } from "./profile.ts";
import type { Screened } from "./screened.ts";

const FORMAT = "PNG";
const SIGNATURE_BYTES = 8;
/** Length, type and checksum of a chunk. */
const CHUNK_BYTES = 12;
/** For each pixel, and for each of its bytes. */
const PIXEL_MS = 8e-6;
const BYTE_MS = 6e-6;

/**
 * The chunks that pixels depend on (https://www.w3.org/TR/png-3/#11Chunks), as they are, and each once but for the
 * pixels' own. All others are dropped: libpng inflates every text on reading the header, and 300 KB of zTXt become
 * gigabytes of memory; and it warns of each repeated or damaged one, which can take a second.
 */
const KEPT: ReadonlySet<string> = new Set(["IHDR", "PLTE", "tRNS"]);

/** A PNG as its decoder may see it: see {@link KEPT}, and a colour profile and an orientation written anew. */
export function screenPng(bytes: Buffer): Screened {
  const cursor = new Cursor(bytes, FORMAT, { at: SIGNATURE_BYTES });
  const kept: (Buffer | { readonly profile: Buffer })[] = [bytes.subarray(0, SIGNATURE_BYTES)];
  const seen = new Set<string>();
  let header: Buffer | undefined;
  let orientation: Orientation = 1;
  for (let count = 0; ; count += 1) {
    if (count > BOUNDS.pngChunks) throw tooMany(FORMAT, "chunks");
    const at = cursor.at;
    const [length, type] = [cursor.u32(), cursor.tag()];
    const content = cursor.take(length);
    cursor.skip(4);
    if (count === 0) {
      if (type !== "IHDR" || length !== 13) throw damaged(FORMAT);
      header = content;
    }
    const beforePixels = !seen.has(type) && !seen.has("IDAT");
    if (type === "IDAT" || type === "IEND" || (KEPT.has(type) && !seen.has(type))) {
      kept.push(bytes.subarray(at, cursor.at));
    } else if (type === "iCCP" && beforePixels) {
      kept.push({ profile: content });
    } else if (type === "eXIf" && beforePixels) {
      orientation = orientationOf(content);
      if (orientation !== 1) kept.push(chunk("eXIf", exifOf(orientation)));
    }
    if (type === "IEND") break;
    seen.add(type);
  }
  const [width, height] = [header?.readUInt32BE(0) ?? 0, header?.readUInt32BE(4) ?? 0];
  const [depth = 8, colour = 6, , , interlaced = 0] = header?.subarray(8) ?? [];
  if (width === 0 || height === 0) throw damaged(FORMAT);
  const channels = [1, 0, 3, 1, 2, 0, 4][colour] ?? 4;
  const pixelBytes = Math.max(1, (channels * depth) / 8);
  return {
    width,
    height,
    orientation,
    pixels: width * height,
    pixelBytes,
    // The rows of an interlaced one are complete only at its end.
    memoryBytes: interlaced ? width * height * pixelBytes : 0,
    expectedMs: width * height * (PIXEL_MS + pixelBytes * BYTE_MS),
    // Only now, as it may be a thousand times its size: many images wait, few are decoded.
    parts: () => kept.flatMap((part) => ("profile" in part ? (inflateProfile(part.profile) ?? []) : [part])),
  };
}

/** The chunk with the profile made harmless, stored instead of compressed: what was checked is what is read. */
function inflateProfile(content: Buffer): Buffer | undefined {
  const name = content.indexOf(0);
  if (name < 1 || name > 79 || content[name + 1] !== 0) return undefined;
  try {
    const inflated = inflateSync(content.subarray(name + 2), { maxOutputLength: BOUNDS.profileBytes });
    const profile = harmlessProfile(inflated);
    return (
      profile &&
      chunk("iCCP", Buffer.concat([Buffer.from("icc\0\0", "latin1"), deflateSync(profile, { level: 0 })]))
    );
  } catch {
    // Broken or too large: the picture is shown as one without a profile.
    return undefined;
  }
}

function chunk(type: string, content: Buffer): Buffer {
  const out = Buffer.alloc(CHUNK_BYTES + content.length);
  out.writeUInt32BE(content.length);
  out.write(type, 4, "latin1");
  content.copy(out, 8);
  out.writeUInt32BE(crc32(out.subarray(4, -4)), out.length - 4);
  return out;
}
