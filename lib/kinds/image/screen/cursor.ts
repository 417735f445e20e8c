import { ServingError } from "../../../errors.ts";

/** @param format upper case, as the client reads it */
export function damaged(format: string): ServingError {
  return new ServingError("INVALID_IMAGE", `The ${format} is damaged or cut short`);
}

/** For what no encoder writes and only costs its reader. @param excess "scans", "frames" … */
export function tooMany(format: string, excess: string): ServingError {
  return new ServingError("INVALID_IMAGE", `The ${format} has more ${excess} than an image needs`);
}

/** For variants of a format that we do not decode. */
export function unsupported(format: string, variant: string): ServingError {
  return new ServingError("INVALID_IMAGE", `The ${format} is of a kind that is not supported: ${variant}`);
}

/**
 * Reads forward over bytes that nobody vouches for. It never goes back and never outside, so that a walk with it ends
 * after at most as many steps as there are bytes, whatever they say.
 *
 * Every reading method throws INVALID_IMAGE where the bytes end too early.
 */
export class Cursor {
  readonly bytes: Buffer;
  readonly #format: string;
  readonly #littleEndian: boolean;
  #at: number;

  /** @param format upper case, for the error */
  constructor(bytes: Buffer, format: string, { at = 0, littleEndian = false } = {}) {
    this.bytes = bytes;
    this.#format = format;
    this.#littleEndian = littleEndian;
    this.#at = 0;
    this.skip(at);
  }

  get at(): number {
    return this.#at;
  }

  get left(): number {
    return this.bytes.length - this.#at;
  }

  /** The next `count` bytes, a view. */
  take(count: number): Buffer {
    const start = this.#at;
    this.skip(count);
    return this.bytes.subarray(start, this.#at);
  }

  skip(count: number): void {
    if (!(count >= 0 && count <= this.left)) throw damaged(this.#format);
    this.#at += count;
  }

  u8(): number {
    const at = this.#at;
    this.skip(1);
    return this.bytes[at] ?? 0;
  }

  u16(): number {
    const at = this.#at;
    this.skip(2);
    return this.#littleEndian ? this.bytes.readUInt16LE(at) : this.bytes.readUInt16BE(at);
  }

  u32(): number {
    const at = this.#at;
    this.skip(4);
    return this.#littleEndian ? this.bytes.readUInt32LE(at) : this.bytes.readUInt32BE(at);
  }

  /** An unsigned integer of `size` bytes, 0 to 8; 0 bytes are 0. What is above 2^53 is inexact, and outside anyway. */
  uint(size: number): number {
    let value = 0;
    for (const byte of this.take(size)) value = value * 256 + byte;
    return value;
  }

  /** Four characters, one for each byte. */
  tag(): string {
    return this.take(4).toString("latin1");
  }
}
