/** Containers that are read, by the name of FFmpeg's demuxer. */
export type Container = "mov" | "matroska" | "avi";

/** Boxes that an MP4 or QuickTime file may begin with. */
const BOXES = new Set(["ftyp", "moov", "mdat", "wide", "free", "skip"]);

/**
 * The container by its first bytes, whatever name or content type came with it; undefined for anything else. FFmpeg must
 * never get to guess: it would take a text for a playlist, and read the files and addresses that this names.
 */
export function containerOf(bytes: Uint8Array): Container | undefined {
  const text = (from: number, to: number) => Buffer.from(bytes.subarray(from, to)).toString("latin1");
  if (BOXES.has(text(4, 8))) return "mov";
  if (text(0, 4) === "\x1a\x45\xdf\xa3") return "matroska";
  if (text(0, 4) === "RIFF" && text(8, 12) === "AVI ") return "avi";
  return undefined;
}
