import { BOUNDS } from "./bounds.ts";
import { Cursor } from "./cursor.ts";

/** How a stored photo must be turned to be upright: EXIF 2.32, tag 274. 1: it is; from 5 on, its sides change places. */
export type Orientation = 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8;

const ORIENTATION_TAG = 274;
const SHORT = 3;

/**
 * The orientation in an EXIF block; 1 where there is none or the block is broken, as browsers do.
 *
 * @param exif begins with the byte order, with or without `Exif\0\0` before
 */
export function orientationOf(exif: Buffer): Orientation {
  try {
    const tiff = exif.toString("latin1", 0, 6) === "Exif\0\0" ? exif.subarray(6) : exif;
    const order = tiff.toString("latin1", 0, 4);
    if (order !== "II*\0" && order !== "MM\0*") return 1;
    const littleEndian = order === "II*\0";
    const at = new Cursor(tiff, "EXIF", { at: 4, littleEndian }).u32();
    const directory = new Cursor(tiff, "EXIF", { at, littleEndian });
    const count = Math.min(directory.u16(), BOUNDS.exifEntries);
    for (let i = 0; i < count; i += 1) {
      const [tag, type, values, value] = [directory.u16(), directory.u16(), directory.u32(), directory.u16()];
      directory.skip(2);
      if (tag === ORIENTATION_TAG) return type === SHORT && values === 1 ? asOrientation(value) : 1;
    }
  } catch {
    // Broken metadata is no reason to refuse a photo.
  }
  return 1;
}

export function asOrientation(value: number): Orientation {
  return Number.isInteger(value) && value >= 1 && value <= 8 ? (value as Orientation) : 1;
}

/** An EXIF block that says this and nothing else: what the decoder's EXIF parser gets to see. */
export function exifOf(orientation: Orientation): Buffer {
  const exif = Buffer.alloc(26);
  exif.write("II*\0\x08\0\0\0\x01\0", "latin1");
  exif.writeUInt16LE(ORIENTATION_TAG, 10);
  exif.writeUInt16LE(SHORT, 12);
  exif.writeUInt32LE(1, 14);
  exif.writeUInt16LE(orientation, 18);
  return exif;
}
