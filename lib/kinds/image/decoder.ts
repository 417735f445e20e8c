import sharp, { type Sharp } from "sharp";
import { serveParent } from "../../process/child.ts";
import type { FromDecoder, Job, Size, ToDecoder } from "./decoding.ts";

/**
 * The process that decodes images, one after the other. Whatever a file does to libvips and the libraries behind it, it
 * does here: this process holds nothing else, and may be killed at any time.
 */
serveParent();

// Every image is seen once, so libvips' operation cache can only cost memory; one thread for each image, because
// several processes decode at once; and no loader but the six we promise, so that a gap in our own look at the bytes
// cannot reach SVG's or PDF's.
sharp.cache(false);
sharp.concurrency(1);
sharp.block({ operation: ["VipsForeignLoad"] });
sharp.unblock({
  operation: ["Jpeg", "Png", "Webp", "Nsgif", "Heif", "Tiff"].map((name) => `VipsForeignLoad${name}Buffer`),
});

const send = (message: FromDecoder) => process.send?.(message);

/** V8 does not hurry to free a message's bytes, which live outside of its heap. From this size on it is told to. */
const LARGE_BYTES = 2 ** 20;

process.on("message", async ({ id, job }: ToDecoder) => {
  const size = job.parts.reduce((sum, part) => sum + part.byteLength, 0);
  try {
    send({ id, ...(await decode(job)) });
  } catch (error) {
    const tooLarge = (error as Error).message.includes("pixel limit");
    send({ id, ok: false, reason: tooLarge ? "pixels" : "damaged" });
  }
  if (size > LARGE_BYTES) globalThis.gc?.();
});
send({ ready: true });

async function decode({ parts, format, box, frame, maxPixels }: Job): Promise<Outcome> {
  const pipeline = sharp(Buffer.concat(parts), {
    // Refuses what is cut short or makes no sense to libpng, libtiff, …; lets pass the warnings that many cameras'
    // JPEGs come with.
    failOn: "error",
    limitInputPixels: maxPixels,
    autoOrient: true,
  })
    // Triangle filter: of libvips' kernels the nearest to training's pixels. `fastShrinkOnLoad` would save up to 10 %
    // of large photos' decode, but move some of them by a fraction of a pixel.
    .resize({ ...box, fit: "cover", kernel: "linear", fastShrinkOnLoad: false })
    .flatten({ background: "#fff" })
    .raw();
  const pixels = await render(pipeline, format);
  if (pixels.byteLength !== box.width * box.height * 3) return { ok: false, reason: "colours" };
  return { ok: true, pixels: centre(pixels, box, frame) };
}

type Outcome =
  | { readonly ok: true; readonly pixels: Uint8Array }
  | { readonly ok: false; readonly reason: "colours" };

/**
 * sharp takes 16-bit images with a profile to Display P3 and leaves them there; reduced to 8 bits before the profile is
 * applied, they end in sRGB. JPEGs are spared the look (4 % of their cost): they have 8 bits.
 */
async function render(pipeline: Sharp, format: Job["format"]): Promise<Uint8Array> {
  if (format !== "jpeg" && (await pipeline.metadata()).space === "rgb16")
    pipeline.pipelineColourspace("srgb");
  // Not `toUint8Array`: sharp 0.35.5 frees the wrong one of its two arguments there, and every image stays in memory.
  return pipeline.toBuffer();
}

/**
 * Not sharp's `extract`: with it, sharp turns photos upright at full size, and a 12-megapixel one costs six times as
 * much.
 */
function centre(pixels: Uint8Array, box: Size, frame: Size): Uint8Array {
  if (box.width === frame.width && box.height === frame.height) return pixels;
  const left = Math.floor((box.width - frame.width) / 2);
  const top = Math.floor((box.height - frame.height) / 2);
  const out = new Uint8Array(frame.width * frame.height * 3);
  for (let row = 0; row < frame.height; row += 1) {
    const start = ((top + row) * box.width + left) * 3;
    out.set(pixels.subarray(start, start + frame.width * 3), row * frame.width * 3);
  }
  return out;
}
