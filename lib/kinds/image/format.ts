import type { ImageFormat } from "./input.ts";

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
