import { BOUNDS } from "./bounds.ts";
import { Cursor, damaged, tooMany, unsupported } from "./cursor.ts";
import { exifOf, type Orientation, orientationOf } from "./exif.ts";
import { harmlessProfile } from "./profile.ts";
import type { Screened } from "./screened.ts";

const FORMAT = "JPEG";
/** Coefficients of a block, 8×8. */
const BLOCK = 64;
const COEFFICIENT_BYTES = 2;
/** A scan's cost for each block besides its coefficients, in coefficients: the block has to come from memory. */
const BLOCK_VISIT = 12;
/** Of a baseline image for each pixel, and of the others for each coefficient that a scan goes over. */
const PIXEL_MS = 4e-6;
const VISIT_MS = 2.5e-6;

const ICC_HEADER = "ICC_PROFILE\0";
/** Of a segment with a part of a profile: the header, the part's number and how many there are. */
const ICC_PART_BYTES = 0xffff - 2 - ICC_HEADER.length - 2;

interface Component {
  readonly id: number;
  readonly blocks: number;
}

interface Frame {
  readonly width: number;
  readonly height: number;
  readonly progressive: boolean;
  readonly components: readonly Component[];
}

/** What a JPEG consists of, as far as pixels depend on it. */
export interface JpegParts {
  readonly frame: Frame | undefined;
  readonly scans: number;
  /** Coefficients that all scans together go over. */
  readonly visits: number;
  /** Whether a scan holds fewer than all components: the whole image is then kept as coefficients. */
  readonly splitScans: boolean;
  /** Tables, frame header and scans in their order. */
  readonly kept: readonly Buffer[];
  readonly jfif: boolean;
  /** The segment in which Adobe says what the colours are. */
  readonly adobe: Buffer | undefined;
  readonly orientation: Orientation;
  readonly profile: Buffer | undefined;
  /** Whether the end marker was there. */
  readonly ended: boolean;
}

/**
 * A JPEG as its decoder may see it: tables, frame and scans; of the metadata a colour profile made harmless, the
 * orientation and what says which colours these are. It must reach its end marker: decoders stop at the last row that
 * a crop needs, so a file that was cut off would be refused for one model's frame and accepted for another's. Trailing
 * bytes are common; they are left off.
 *
 * Eight bits, baseline or progressive Huffman coding: what browsers show. Arithmetic coding and the lossless kind are
 * refused.
 */
export function screenJpeg(bytes: Buffer): Screened {
  const parts = walkJpeg(bytes);
  const { frame, scans } = parts;
  if (!frame || scans === 0 || !parts.ended) throw damaged(FORMAT);
  const blocks = frame.components.reduce((sum, component) => sum + component.blocks, 0);
  // A small image may have as many scans as it likes below their bound: the whole of it stays in the processor's cache.
  if (parts.visits > Math.max(BOUNDS.jpegVisits * blocks * BLOCK, 2e7)) throw tooMany(FORMAT, "scans");
  const { width, height } = frame;
  const keepsCoefficients = frame.progressive || parts.splitScans;
  return {
    width,
    height,
    orientation: parts.orientation,
    pixels: width * height,
    pixelBytes: frame.components.length,
    memoryBytes: keepsCoefficients ? blocks * BLOCK * COEFFICIENT_BYTES : 0,
    expectedMs: keepsCoefficients ? parts.visits * VISIT_MS : width * height * PIXEL_MS,
    parts: () => [
      Buffer.from([0xff, 0xd8]),
      ...(parts.jfif ? [segment(0xe0, Buffer.from("JFIF\0\x01\x01\0\0\x01\0\x01\0\0", "latin1"))] : []),
      ...(parts.adobe ? [parts.adobe] : []),
      ...(parts.orientation === 1
        ? []
        : [segment(0xe1, Buffer.concat([Buffer.from("Exif\0\0", "latin1"), exifOf(parts.orientation)]))]),
      ...(parts.profile ? profileSegments(parts.profile) : []),
      ...parts.kept,
      Buffer.from([0xff, 0xd9]),
    ],
  };
}

/**
 * Goes over the segments and scans once (ITU-T T.81, annex B). Between segments everything up to the next marker is
 * skipped, as decoders do.
 *
 * @throws INVALID_IMAGE for what no decoder of ours takes, or takes for ever
 */
export function walkJpeg(bytes: Buffer): JpegParts {
  const kept: Buffer[] = [];
  const profileParts: Buffer[] = [];
  let frame: Frame | undefined;
  let [scans, visits, splitScans, jfif, ended] = [0, 0, false, false, false];
  let adobe: Buffer | undefined;
  let orientation: Orientation | undefined;

  let at = 2;
  for (let segments = 0; ; segments += 1) {
    if (segments > BOUNDS.jpegSegments) throw tooMany(FORMAT, "segments");
    at = nextMarker(bytes, at);
    if (at < 0) break;
    const marker = bytes[at + 1] ?? 0;
    if (marker === 0xd9) {
      ended = true;
      break;
    }
    // TEM and RSTn stand alone; every other marker has a length.
    if (marker === 0x01 || (marker >= 0xd0 && marker <= 0xd7)) {
      at += 2;
      continue;
    }
    const cursor = new Cursor(bytes, FORMAT, { at: at + 2 });
    const length = cursor.u16();
    if (length < 2) throw damaged(FORMAT);
    const content = cursor.take(length - 2);
    let end = cursor.at;
    if (marker === 0xda) {
      if (!frame) throw damaged(FORMAT);
      scans += 1;
      if (scans > BOUNDS.jpegScans) throw tooMany(FORMAT, "scans");
      const scan = readScan(content, frame);
      visits += scan.visits;
      splitScans ||= scan.components < frame.components.length;
      end = scanEnd(bytes, end);
      kept.push(bytes.subarray(at, end));
    } else if (marker === 0xc0 || marker === 0xc1 || marker === 0xc2) {
      if (frame) throw damaged(FORMAT);
      frame = readFrame(content, marker === 0xc2);
      kept.push(bytes.subarray(at, end));
    } else if (marker === 0xc4 || marker === 0xdb || marker === 0xdd) {
      kept.push(bytes.subarray(at, end));
    } else if (marker >= 0xc3 && marker <= 0xcf) {
      throw unsupported(FORMAT, marker >= 0xc9 ? "arithmetic coding" : "lossless or hierarchical");
    } else if (marker === 0xe0) {
      jfif ||= content.toString("latin1", 0, 5) === "JFIF\0";
    } else if (marker === 0xe1) {
      if (content.toString("latin1", 0, 6) === "Exif\0\0") orientation ??= orientationOf(content);
    } else if (marker === 0xe2) {
      if (content.toString("latin1", 0, ICC_HEADER.length) === ICC_HEADER) profileParts.push(content);
    } else if (marker === 0xee) {
      if (content.toString("latin1", 0, 5) === "Adobe") adobe ??= bytes.subarray(at, end);
    } else if (marker !== 0xdc && marker !== 0xfe && !(marker >= 0xe3 && marker <= 0xef)) {
      throw damaged(FORMAT); // Reserved: decoders give up here, too.
    }
    at = end;
  }
  const profile = joinProfile(profileParts);
  return {
    frame,
    scans,
    visits,
    splitScans,
    kept,
    jfif,
    adobe,
    orientation: orientation ?? 1,
    profile: profile && harmlessProfile(profile),
    ended,
  };
}

/** Where the next marker begins, its padding left behind; -1: nowhere. */
function nextMarker(bytes: Buffer, from: number): number {
  for (let at = from; at + 1 < bytes.length; at += 1) {
    const code = bytes[at + 1];
    if (bytes[at] === 0xff && code !== 0xff && code !== 0) return at;
  }
  return -1;
}

/**
 * Bytes looked at one by one after each FF in a scan. `indexOf` passes over what lies between ten times as fast, but a
 * call takes as long as some 30 bytes do: without this, a file full of FFs would take ten times as long instead.
 */
const STRIDE = 32;

/**
 * Where a scan's data ends: at a marker that is none of its own. A decoder skips those below C0 when it looks for the
 * next restart, and gives up else.
 */
function scanEnd(bytes: Buffer, from: number): number {
  for (let at = bytes.indexOf(0xff, from); at >= 0; at = bytes.indexOf(0xff, at)) {
    const stop = Math.min(at + STRIDE, bytes.length);
    for (; at < stop; at += 1) {
      if (bytes[at] !== 0xff) continue;
      const code = bytes[at + 1] ?? 0;
      if (code >= 0xc0 && code !== 0xff && !(code >= 0xd0 && code <= 0xd7)) return at;
    }
  }
  return bytes.length;
}

function readFrame(content: Buffer, progressive: boolean): Frame {
  const cursor = new Cursor(content, FORMAT);
  const [precision, height, width, count] = [cursor.u8(), cursor.u16(), cursor.u16(), cursor.u8()];
  if (precision !== 8) throw unsupported(FORMAT, `${precision} bits`);
  if (width === 0 || height === 0 || (count !== 1 && count !== 3 && count !== 4)) throw damaged(FORMAT);
  const raw = Array.from({ length: count }, () => {
    const [id, sampling] = [cursor.u8(), cursor.u8()];
    cursor.skip(1);
    return { id, across: sampling >> 4, down: sampling & 15 };
  });
  if (raw.some(({ across, down }) => across < 1 || across > 4 || down < 1 || down > 4)) throw damaged(FORMAT);
  const widest = Math.max(...raw.map(({ across }) => across));
  const tallest = Math.max(...raw.map(({ down }) => down));
  // Whole MCUs, as the coefficients are kept.
  const [columns, rows] = [Math.ceil(width / (8 * widest)), Math.ceil(height / (8 * tallest))];
  return {
    width,
    height,
    progressive,
    components: raw.map(({ id, across, down }) => ({ id, blocks: columns * across * rows * down })),
  };
}

function readScan(content: Buffer, frame: Frame): { components: number; visits: number } {
  const cursor = new Cursor(content, FORMAT);
  const components = cursor.u8();
  if (components < 1 || components > frame.components.length) throw damaged(FORMAT);
  const ids = Array.from({ length: components }, () => {
    const id = cursor.u8();
    cursor.skip(1);
    return id;
  });
  const [first, last] = [cursor.u8(), cursor.u8()];
  const band = frame.progressive ? Math.min(BLOCK, Math.max(1, last - first + 1)) : BLOCK;
  const blocks = ids.reduce((sum, id) => sum + (frame.components.find((c) => c.id === id)?.blocks ?? 0), 0);
  return { components, visits: blocks * (band + BLOCK_VISIT) };
}

/** The profile whose numbered parts these are; undefined where one is missing. */
function joinProfile(parts: readonly Buffer[]): Buffer | undefined {
  if (parts.length === 0) return undefined;
  const header = ICC_HEADER.length;
  const byNumber = new Map(parts.map((part) => [part[header], part.subarray(header + 2)]));
  const ordered = Array.from({ length: parts[0]?.[header + 1] ?? 0 }, (_, i) => byNumber.get(i + 1));
  if (ordered.length === 0 || ordered.some((part) => part === undefined)) return undefined;
  return Buffer.concat(ordered as Buffer[]);
}

function profileSegments(profile: Buffer): Buffer[] {
  const count = Math.ceil(profile.length / ICC_PART_BYTES);
  return Array.from({ length: count }, (_, i) =>
    segment(
      0xe2,
      Buffer.concat([
        Buffer.from(ICC_HEADER, "latin1"),
        Buffer.from([i + 1, count]),
        profile.subarray(i * ICC_PART_BYTES, (i + 1) * ICC_PART_BYTES),
      ]),
    ),
  );
}

function segment(marker: number, content: Buffer): Buffer {
  const out = Buffer.allocUnsafe(4 + content.length);
  out[0] = 0xff;
  out[1] = marker;
  out.writeUInt16BE(content.length + 2, 2);
  content.copy(out, 4);
  return out;
}
