import fc from "fast-check";
import { ServingError } from "../lib/errors.ts";
import type { ImageInput } from "../lib/kinds/image/input.ts";
import type { ImagePipeline } from "../lib/kinds/image/pipeline.ts";
import {
  blankPng,
  box,
  elementsProfile,
  jpegTiff,
  manyGifFrames,
  manyScans,
  manySegments,
  manyTiffPages,
  manyTiffTiles,
  manyWebpFrames,
  matrixTags,
  overfullGif,
  profileChunk,
  profileOf,
  profileSegments,
  riff,
  riffChunk,
  type TiffEntry,
  tableProfile,
  tiffOf,
  withChunks,
  withSegments,
} from "./hostile-images.ts";

/** What an image that nobody vouches for may be answered with, if not with pixels. */
const REFUSALS = new Set([
  "BAD_REQUEST",
  "PAYLOAD_TOO_LARGE",
  "UNSUPPORTED_MEDIA_TYPE",
  "INVALID_IMAGE",
  "TOO_MANY_PIXELS",
]);

const FRAME: ImageInput = { type: "image", width: 24, height: 16, shortSide: 20 };

export interface Fuzzed {
  /** "ok" or the error's code. */
  readonly outcome: string;
  readonly inspectMs: number;
  readonly prepareMs: number;
}

/**
 * Sends bytes through the pipeline as a request does.
 *
 * @throws if they come out as something else than pixels of the right size or an error that is meant for the client
 */
export async function fuzz(pipeline: ImagePipeline, bytes: Uint8Array): Promise<Fuzzed> {
  const began = performance.now();
  const inspected = await settle(pipeline.inspect(bytes));
  const inspectMs = performance.now() - began;
  const prepared = await settle(pipeline.prepare(bytes, FRAME));
  const prepareMs = performance.now() - began - inspectMs;
  if (typeof prepared !== "string" && prepared.byteLength !== FRAME.width * FRAME.height * 3) {
    throw new Error(`${prepared.byteLength} bytes of pixels`);
  }
  // What inspection refuses, decoding must; what it takes, a decoder may still refuse.
  if (typeof inspected === "string" && inspected !== prepared) {
    throw new Error(`inspect: ${inspected}, prepare: ${typeof prepared === "string" ? prepared : "pixels"}`);
  }
  return { outcome: typeof prepared === "string" ? prepared : "ok", inspectMs, prepareMs };
}

async function settle<T>(work: Promise<T>): Promise<T | string> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof ServingError && REFUSALS.has(error.type)) return error.type;
    throw error;
  }
}

/** Where to (as a share of the length; half of them in the header) and what to write. */
const flip = fc.record({
  at: fc.oneof(fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 0.1, noNaN: true })),
  value: fc.oneof(fc.nat(255), fc.constantFrom(0, 0x7f, 0x80, 0xff)),
});

/** A part of the file, copied over another place of it: structures that are sound in themselves where none belong. */
const graft = fc.record({
  from: fc.double({ min: 0, max: 1, noNaN: true }),
  to: fc.double({ min: 0, max: 1, noNaN: true }),
  length: fc.integer({ min: 1, max: 200 }),
});

/** What the format is known by; damaged in few files only, as the rest are not looked at any further. */
const SIGNATURE_BYTES = 12;

const damage = fc.record({
  signature: fc.oneof({ weight: 15, arbitrary: fc.constant(false) }, fc.constant(true)),
  flips: fc.array(flip, { maxLength: 12 }),
  grafts: fc.array(graft, { maxLength: 2 }),
  cut: fc.oneof({ weight: 3, arbitrary: fc.constant(1) }, fc.double({ min: 0.001, max: 1, noNaN: true })),
  tail: fc.uint8Array({ maxLength: 8 }),
});

type Damage = typeof damage extends fc.Arbitrary<infer T> ? T : never;

function apply(sample: Buffer, { signature, flips, grafts, cut, tail }: Damage): Buffer {
  const bytes = Buffer.from(sample);
  for (const { from, to, length } of grafts) {
    const at = Math.floor(from * (sample.length - 1));
    sample.copy(bytes, Math.floor(to * (bytes.length - 1)), at, at + length);
  }
  for (const { at, value } of flips) bytes[Math.floor(at * (bytes.length - 1))] = value;
  if (!signature) sample.copy(bytes, 0, 0, SIGNATURE_BYTES);
  return Buffer.concat([bytes.subarray(0, Math.ceil(bytes.length * cut)), tail]);
}

/** Good files with bytes changed, moved, cut off and put behind. */
export function damaged(samples: readonly Buffer[]): fc.Arbitrary<Buffer> {
  return fc.tuple(fc.constantFrom(...samples), damage).map(([sample, done]) => apply(sample, done));
}

const side = fc.oneof(fc.integer({ min: 1, max: 64 }), fc.integer({ min: 1, max: 2_500 }));
const size = fc.tuple(side, side);
const count = (most: number) => fc.oneof(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: most }));

const tagName = fc.constantFrom(..."wtpt rXYZ rTRC kTRC A2B0 A2B1 B2A0 D2B0 D2B1 desc cicp ncl2".split(" "));
const tagType = fc.constantFrom(
  ...("XYZ  curv para mft1 mft2 mAB  mBA  mpet text mluc".match(/.{4} ?/g) ?? []),
);
const tag = fc
  .tuple(tagName, tagType, fc.uint8Array({ maxLength: 300 }))
  .map(
    ([name, type, data]) =>
      [name, Buffer.concat([Buffer.from(type.slice(0, 4)), Buffer.alloc(4), data])] as const,
  );

const profile = fc.oneof(
  count(5_000).map(elementsProfile),
  fc
    .tuple(fc.constantFrom(3 as const, 4 as const), fc.integer({ min: 2, max: 12 }))
    .map(([inputs, grid]) => tableProfile(inputs, grid)),
  fc
    .tuple(
      fc.array(tag, { maxLength: 120 }),
      fc.constantFrom("RGB ", "CMYK", "GRAY", "Lab "),
      fc.constantFrom("XYZ ", "Lab "),
    )
    .map(([tags, space, pcs]) => profileOf([...matrixTags(), ...tags], { space, pcs })),
);

const tiffTag = fc.constantFrom(
  ...[
    254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 330, 338,
    339, 347,
  ],
  ...[512, 513, 514, 530, 532, 34665, 34675, 700],
);
const tiffEntry: fc.Arbitrary<TiffEntry> = fc
  .tuple(
    tiffTag,
    fc.constantFrom(3 as const, 4 as const),
    fc.array(fc.nat(70_000), { minLength: 1, maxLength: 8 }),
  )
  .map(([tag, type, values]) => [tag, type, values.map((value) => (type === 3 ? value & 0xffff : value))]);

const page = fc
  .tuple(size, fc.array(tiffEntry, { maxLength: 12 }))
  .map(([[width, height], more]): TiffEntry[] => [
    [256, 4, [width]],
    [257, 4, [height]],
    [258, 3, [8]],
    [262, 3, [1]],
    [273, 4, [8]],
    [279, 4, [1_000]],
    ...more,
  ]);

/** Files that hold too much of something, or it in a strange way; half of them damaged, too. */
export function structures(base: {
  jpeg: Buffer;
  png: Buffer;
  webp: Buffer;
  avif: Buffer;
}): fc.Arbitrary<Promise<Buffer>> {
  const built: fc.Arbitrary<Buffer | Promise<Buffer>> = fc.oneof(
    fc
      .tuple(size, fc.integer({ min: 1, max: 200 }), fc.boolean(), fc.constantFrom(1, 3, 4))
      .map(([[width, height], scans, arithmetic, components]) =>
        manyScans(width, height, scans, { arithmetic, components }),
      ),
    count(50_000).map(manySegments),
    count(5_000).map((frames) => manyWebpFrames(frames + 1)),
    count(20_000).map((frames) => manyGifFrames(frames + 1)),
    fc.tuple(size, count(100_000)).map(([[width, height], behind]) => overfullGif(width, height, behind)),
    count(2_000).map((pages) => manyTiffPages(pages + 1)),
    fc
      .tuple(size, fc.integer({ min: 1, max: 300 }))
      .map(([[width, height], tile]) => manyTiffTiles(width, height, tile)),
    fc
      .tuple(size, fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 100 }))
      .map(([[width, height], scans, rows]) => jpegTiff(width, height, manyScans(width, rows, scans), rows)),
    fc.array(page, { minLength: 1, maxLength: 4 }).map((pages) => tiffOf(Buffer.alloc(1_000, 7), pages)),
    fc
      .tuple(
        size,
        fc.constantFrom(8 as const, 16 as const),
        fc.constantFrom(0 as const, 2 as const, 6 as const),
        fc.boolean(),
      )
      .map(([[width, height], depth, colour, interlaced]) =>
        blankPng(width, height, depth, colour, interlaced),
      ),
    profile.map((icc) => withSegments(base.jpeg, profileSegments(icc))),
    profile.map((icc) => withChunks(base.png, [profileChunk(icc)])),
    profile.map((icc) =>
      riff([
        riffChunk("VP8X", Buffer.from([0x20, 0, 0, 0, 39, 0, 0, 29, 0, 0])),
        riffChunk("ICCP", icc),
        base.webp.subarray(12),
      ]),
    ),
    fc
      .tuple(
        fc.nat(base.avif.length),
        count(3_000),
        fc.constantFrom("free", "infe", "meta", "moov", "colr", "ispe", "iref"),
      )
      .map(([at, boxes, type]) =>
        Buffer.concat([
          base.avif.subarray(0, at),
          ...Array<Buffer>(boxes).fill(box(type, Buffer.alloc(8))),
          base.avif.subarray(at),
        ]),
      ),
  );
  return fc
    .tuple(built, fc.option(damage, { freq: 2 }))
    .map(async ([bytes, done]) => (done ? apply(await bytes, done) : bytes));
}
