import sharp from "sharp";
import { POISONS, type Poison } from "./poison.ts";

/** Start of a JPEG, and of a comment of four bytes in it (ITU-T T.81, B.2.4.5). */
const SOI_LENGTH = 2;
const COMMENT = Buffer.from([0xff, 0xfe, 0x00, 0x06]);

let base: Promise<Buffer> | undefined;

/** A small JPEG with its number in a comment: to a cache each is another image, to a model all are the same. */
export async function photo(number: number): Promise<Buffer> {
  base ??= sharp({ create: { width: 160, height: 120, channels: 3, background: "saddlebrown" } })
    .jpeg()
    .toBuffer();
  const jpeg = await base;
  const content = Buffer.alloc(4);
  content.writeUInt32BE(number);
  return Buffer.concat([jpeg.subarray(0, SOI_LENGTH), COMMENT, content, jpeg.subarray(SOI_LENGTH)]);
}

/** An image all in the colour of that poison; lossless, so that it arrives. */
export function poisoned(poison: Poison): Promise<Buffer> {
  const [r, g, b] = POISONS[poison];
  return sharp({ create: { width: 160, height: 160, channels: 3, background: { r, g, b } } })
    .png()
    .toBuffer();
}
