import { BOUNDS } from "./bounds.ts";
import { Cursor, damaged, tooMany } from "./cursor.ts";
import type { Screened } from "./screened.ts";

const FORMAT = "GIF";
/** Four for the canvas, one for the frame on it. */
const PIXEL_BYTES = 5;
const PIXEL_MS = 16e-6;

const colourTableBytes = (flags: number) => (flags & 0x80 ? 3 * 2 ** ((flags & 7) + 1) : 0);

/**
 * A GIF as its decoder may see it: the first picture with the control block before it, nothing else (GIF89a, 31 July
 * 1990). What comes behind is not looked at.
 */
export function screenGif(bytes: Buffer): Screened {
  const cursor = new Cursor(bytes, FORMAT, { at: 6, littleEndian: true });
  const [width, height, flags] = [cursor.u16(), cursor.u16(), cursor.u8()];
  cursor.skip(2 + colourTableBytes(flags));
  const kept = [bytes.subarray(0, cursor.at)];
  let control: Buffer | undefined;
  for (let count = 0; ; count += 1) {
    if (count > BOUNDS.gifBlocks) throw tooMany(FORMAT, "blocks");
    const at = cursor.at;
    const introducer = cursor.u8();
    if (introducer === 0x2c) {
      cursor.skip(4);
      const frame = { width: cursor.u16(), height: cursor.u16() };
      cursor.skip(colourTableBytes(cursor.u8()) + 1);
      skipBlocks(cursor, Number.POSITIVE_INFINITY);
      if (control) kept.push(control);
      kept.push(bytes.subarray(at, cursor.at), Buffer.from(";"));
      // A picture larger than its canvas makes the canvas grow.
      const pixels = Math.max(width, frame.width) * Math.max(height, frame.height);
      if (pixels === 0) throw damaged(FORMAT);
      return {
        width,
        height,
        orientation: 1,
        pixels,
        pixelBytes: 4,
        memoryBytes: pixels * PIXEL_BYTES,
        expectedMs: pixels * PIXEL_MS,
        parts: () => kept,
      };
    }
    if (introducer !== 0x21) throw damaged(FORMAT);
    const isControl = cursor.u8() === 0xf9;
    count += skipBlocks(cursor, BOUNDS.gifBlocks - count);
    if (isControl) control = bytes.subarray(at, cursor.at);
  }
}

/** Skips sub-blocks up to the empty one; returns how many there were. */
function skipBlocks(cursor: Cursor, most: number): number {
  for (let count = 0; ; count += 1) {
    if (count > most) throw tooMany(FORMAT, "blocks");
    const size = cursor.u8();
    if (size === 0) return count;
    cursor.skip(size);
  }
}
