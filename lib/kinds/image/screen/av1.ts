import { BOUNDS } from "./bounds.ts";
import { Cursor, damaged, tooMany } from "./cursor.ts";

const FORMAT = "AVIF";

/** What an AV1 bitstream says of its largest frame. */
export interface Av1Sequence {
  readonly width: number;
  readonly height: number;
  /** Bytes of a sample as decoders keep them: 1 for 8 bits, 2 for 10 and 12. */
  readonly sampleBytes: 1 | 2;
  /** Samples of a pixel: 1 without colour, 1.5 with a quarter of it (4:2:0), 3 with all (also counted for 4:2:2). */
  readonly samples: 1 | 1.5 | 3;
}

/** Kinds of units (AV1 Bitstream & Decoding Process Specification, §6.2.2). */
const SEQUENCE_HEADER = 1;
const FRAME_HEADER = 3;
const FRAME = 6;

/**
 * Walks the units of an item's bitstream, without looking into pixels.
 *
 * @returns the largest of its sequences; undefined if it has none
 * @throws INVALID_IMAGE if it has more frames than a still image
 */
export function walkAv1(bytes: Buffer): Av1Sequence | undefined {
  const cursor = new Cursor(bytes, FORMAT);
  let largest: Av1Sequence | undefined;
  let frames = 0;
  for (let units = 0; cursor.left > 0; units += 1) {
    if (units > BOUNDS.avifUnits) throw tooMany(FORMAT, "units");
    const header = cursor.u8();
    const kind = (header >> 3) & 15;
    if (header & 4) cursor.skip(1); // Extension: the layer.
    const content = cursor.take(header & 2 ? leb128(cursor) : cursor.left);
    if (kind === FRAME || kind === FRAME_HEADER) frames += 1;
    if (frames > BOUNDS.avifFrames) throw tooMany(FORMAT, "frames");
    if (kind !== SEQUENCE_HEADER) continue;
    const sequence = readSequence(content);
    if (!largest || sequence.width * sequence.height > largest.width * largest.height) largest = sequence;
  }
  return largest;
}

/** §4.10.5; a size of a unit has at most 32 bits. */
function leb128(cursor: Cursor): number {
  let value = 0;
  for (let i = 0; i < 8; i += 1) {
    const byte = cursor.u8();
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (!(byte & 0x80)) return value;
  }
  throw damaged(FORMAT);
}

/** Sequence header, §5.5, as far as the colour configuration. */
function readSequence(content: Buffer): Av1Sequence {
  const bits = new Bits(content);
  const profile = bits.read(3);
  bits.read(1);
  const reduced = bits.flag();
  if (reduced) bits.read(5);
  else readOperatingPoints(bits);
  const [widthBits, heightBits] = [bits.read(4) + 1, bits.read(4) + 1];
  const [width, height] = [bits.read(widthBits) + 1, bits.read(heightBits) + 1];
  if (!reduced && bits.flag()) bits.read(7);
  bits.read(3);
  if (!reduced) readTools(bits);
  bits.read(3);
  const highDepth = bits.flag();
  if (profile === 2 && highDepth) bits.read(1);
  const monochrome = profile !== 1 && bits.flag();
  return {
    width,
    height,
    sampleBytes: highDepth ? 2 : 1,
    samples: monochrome ? 1 : profile === 0 ? 1.5 : 3,
  };
}

/** From timing_info_present_flag to the last operating point. */
function readOperatingPoints(bits: Bits): void {
  let delayBits = 0;
  if (bits.flag()) {
    bits.read(64);
    if (bits.flag()) bits.uvlc();
    if (bits.flag()) {
      delayBits = bits.read(5) + 1;
      bits.read(42);
    }
  }
  const initialDelay = bits.flag();
  const points = bits.read(5) + 1;
  for (let i = 0; i < points; i += 1) {
    bits.read(12);
    if (bits.read(5) > 7) bits.read(1);
    if (delayBits > 0 && bits.flag()) bits.read(2 * delayBits + 1);
    if (initialDelay && bits.flag()) bits.read(4);
  }
}

/** From enable_interintra_compound to order_hint_bits. */
function readTools(bits: Bits): void {
  bits.read(4);
  const orderHint = bits.flag();
  if (orderHint) bits.read(2);
  const screenContent = bits.flag() || bits.flag();
  if (screenContent && !bits.flag()) bits.read(1);
  if (orderHint) bits.read(3);
}

/** Reads bits, the highest of a byte first. */
class Bits {
  readonly #cursor: Cursor;
  #byte = 0;
  #left = 0;

  constructor(bytes: Buffer) {
    this.#cursor = new Cursor(bytes, FORMAT);
  }

  flag(): boolean {
    return this.read(1) === 1;
  }

  /** Exact up to 53 bits. */
  read(count: number): number {
    let value = 0;
    for (let i = 0; i < count; i += 1) {
      if (this.#left === 0) {
        this.#byte = this.#cursor.u8();
        this.#left = 8;
      }
      this.#left -= 1;
      value = value * 2 + ((this.#byte >> this.#left) & 1);
    }
    return value;
  }

  /** §4.10.3 */
  uvlc(): void {
    let zeros = 0;
    while (!this.flag()) zeros += 1;
    if (zeros < 32) this.read(zeros);
  }
}
