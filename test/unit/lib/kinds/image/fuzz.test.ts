import fc from "fast-check";
import { ServingError } from "../../../../../lib/errors.ts";
import { ImagePipeline } from "../../../../../lib/kinds/image/pipeline.ts";
import { animation, photo } from "./samples.ts";

const pipeline = new ImagePipeline({ maxPixels: 1e6 });
const expected = new Set(["UNSUPPORTED_MEDIA_TYPE", "INVALID_IMAGE", "TOO_MANY_PIXELS"]);

const samples = await Promise.all([
  photo(40, 30)
    .withExif({ IFD0: { Artist: "nobody" } })
    .withIccProfile("p3")
    .jpeg()
    .toBuffer(),
  photo(40, 30).jpeg({ progressive: true }).toBuffer(),
  photo(40, 30).withIccProfile("p3").png().toBuffer(),
  photo(40, 30).toColourspace("rgb16").png({ progressive: true }).toBuffer(),
  photo(40, 30).webp().toBuffer(),
  photo(40, 30).webp({ lossless: true }).toBuffer(),
  animation(16).gif().toBuffer(),
  photo(40, 30).avif({ effort: 0 }).toBuffer(),
  photo(40, 30).tiff({ compression: "lzw" }).toBuffer(),
  photo(40, 30).tiff({ compression: "jpeg" }).toBuffer(),
]);

/** Where to (as a share of the length; half of them in the header) and what to write. */
const flip = fc.record({
  at: fc.oneof(fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 0.1, noNaN: true })),
  value: fc.oneof(fc.nat(255), fc.constantFrom(0, 0x7f, 0x80, 0xff)),
});

const damaged = fc
  .record({
    sample: fc.constantFrom(...samples),
    flips: fc.array(flip, { maxLength: 12 }),
    cut: fc.oneof(fc.constant(1), fc.double({ min: 0.001, max: 1, noNaN: true })),
    tail: fc.uint8Array({ maxLength: 8 }),
  })
  .map(({ sample, flips, cut, tail }) => {
    const bytes = Buffer.from(sample);
    for (const { at, value } of flips) bytes[Math.floor(at * (bytes.length - 1))] = value;
    return Buffer.concat([bytes.subarray(0, Math.ceil(bytes.length * cut)), tail]);
  });

test("a damaged file is a tensor of the right size or an error of ours, never a crash", async () => {
  await fc.assert(
    fc.asyncProperty(damaged, async (bytes) => {
      const outcomes = await Promise.allSettled([
        pipeline.inspect(bytes).then(({ width, height }) => width * height <= 1e6),
        pipeline
          .prepare(bytes, { type: "image", width: 24, height: 16, shortSide: 20 })
          .then((pixels) => pixels.byteLength === 24 * 16 * 3),
      ]);
      for (const outcome of outcomes) {
        if (outcome.status === "fulfilled") expect(outcome.value).toBe(true);
        else {
          expect(outcome.reason).toBeInstanceOf(ServingError);
          expect(expected).toContain(outcome.reason.type);
        }
      }
    }),
    { numRuns: 400 },
  );
  expect(pipeline.active).toBe(0);
});
