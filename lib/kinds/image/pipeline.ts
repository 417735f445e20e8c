import { hash } from "node:crypto";
import { availableParallelism } from "node:os";
import sharp, { type Sharp } from "sharp";
import { CancelledError, DeadlineExceededError, ServingError } from "../../errors.ts";
import { Semaphore } from "../../request/semaphore.ts";
import { decodableBytes, type ImageFormat, sniffFormat } from "./format.ts";
import type { ImageInfo, ImageInput } from "./kind.ts";

// Process-wide settings of libvips. Every image is seen once, so its operation cache can only cost memory; one thread
// for each image, because several images are decoded at once; and no loader but the six we promise, so that a gap in
// our own look at the first bytes cannot reach SVG's or PDF's.
sharp.cache(false);
sharp.concurrency(1);
sharp.block({ operation: ["VipsForeignLoad"] });
sharp.unblock({
  operation: ["Jpeg", "Png", "Webp", "Nsgif", "Heif", "Tiff"].map((name) => `VipsForeignLoad${name}Buffer`),
});

export interface ImagePipelineOptions {
  /**
   * Largest encoded image, in bytes. At least 1.
   *
   * @default 10_485_760 (10 MiB)
   */
  maxBytes?: number;
  /**
   * Largest decoded image, in pixels of its first frame. At least 1. The worst case of memory for one decode is
   * about 8 bytes for each (an interlaced 16-bit PNG with alpha).
   *
   * @default 40_000_000
   */
  maxPixels?: number;
  /**
   * Images decoded at once. At least 1. Each takes one thread of libuv's pool (`UV_THREADPOOL_SIZE`, 4 by
   * default), which file system, DNS and crypto share: leave them one.
   *
   * @default the CPU limit (the container's, else the machine's cores), but at most 3
   */
  concurrency?: number;
  /**
   * Images that may wait for their decode; the next is refused with QUEUE_FULL. At least 0.
   *
   * @default 128
   */
  maxWaiting?: number;
  /**
   * Longest time for one image, waiting included, in milliseconds, when the caller has no earlier deadline. 1 to
   * 3_600_000.
   *
   * @default 10_000
   */
  timeoutMs?: number;
}

export interface PrepareOptions {
  /** The client hung up: an image still waiting is not decoded. */
  signal?: AbortSignal | undefined;
  /** When the answer is worthless, in milliseconds on the clock of `performance.now()`. */
  deadline?: number | undefined;
  /** Called when its decode begins: what came before was waiting. */
  onStart?: (() => void) | undefined;
}

/**
 * Encoded photos in, pixels for a model out. Limits are checked on the header, before any pixel is decoded.
 *
 * What a model sees: the photo turned upright (EXIF), in sRGB (embedded profiles are applied, CMYK and greyscale
 * converted, 16 bits reduced to 8), transparent parts on white, scaled with an antialiased triangle filter.
 * White is what nearly every page shows behind a transparent picture; dropping the alpha channel instead, as PIL's
 * `convert("RGB")` does, uncovers colours that nobody was meant to see. Photos for training have no alpha.
 */
export class ImagePipeline {
  readonly #maxBytes: number;
  readonly #maxPixels: number;
  readonly #timeoutMs: number;
  readonly #decodes: Semaphore;

  /** @throws {TypeError} on an option out of its range */
  constructor(options: ImagePipelineOptions = {}) {
    const {
      maxBytes = 10 * 2 ** 20,
      maxPixels = 40e6,
      concurrency = Math.min(availableParallelism(), 3),
      maxWaiting = 128,
      timeoutMs = 10_000,
    } = options;
    this.#maxBytes = integer("maxBytes", maxBytes, 1);
    this.#maxPixels = integer("maxPixels", maxPixels, 1);
    this.#timeoutMs = integer("timeoutMs", timeoutMs, 1, 3_600_000);
    this.#decodes = new Semaphore(
      "the image decoder",
      integer("concurrency", concurrency, 1),
      integer("maxWaiting", maxWaiting, 0),
    );
  }

  /** Images being decoded. */
  get active(): number {
    return this.#decodes.active;
  }

  /** Images waiting for their decode. */
  get waiting(): number {
    return this.#decodes.waiting;
  }

  /**
   * What the header says; no pixel is decoded. Not bounded by `concurrency`: it costs a twentieth of a decode.
   *
   * @throws {ServingError} BAD_REQUEST (empty), PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, INVALID_IMAGE,
   *   TOO_MANY_PIXELS
   */
  async inspect(bytes: Uint8Array): Promise<ImageInfo> {
    const { format, data } = this.#admit(bytes);
    const reader = sharp(data, { failOn: "error", limitInputPixels: false });
    const { autoOrient } = await reader.metadata().catch(() => {
      throw new ServingError("INVALID_IMAGE", `The header of the ${format.toUpperCase()} cannot be read`);
    });
    const { width, height } = autoOrient;
    if (width * height > this.#maxPixels) throw this.#tooManyPixels(`${width}×${height} pixels`);
    return { width, height, format, bytes: bytes.byteLength, sha256: hash("sha256", bytes, "hex") };
  }

  /**
   * The first frame as the model wants it: `[height, width, 3]` uint8 RGB. Resize semantics:
   * {@link ImageInput.shortSide}; a `shortSide` too small for the frame is raised until the photo covers it. Small
   * photos are enlarged.
   *
   * @throws {ServingError} as `inspect`, and QUEUE_FULL, DEADLINE_EXCEEDED, CANCELLED
   */
  async prepare(bytes: Uint8Array, input: ImageInput, options: PrepareOptions = {}): Promise<Uint8Array> {
    const { signal, deadline = Number.POSITIVE_INFINITY, onStart } = options;
    const { format, data } = this.#admit(bytes);
    const timeLeft = Math.min(deadline - performance.now(), this.#timeoutMs);
    if (signal?.aborted) throw new CancelledError();
    if (timeLeft <= 0) throw new DeadlineExceededError("decode");

    const stop = new AbortController();
    const cancel = () => stop.abort(new CancelledError());
    const timer = setTimeout(() => stop.abort(new DeadlineExceededError("decode")), timeLeft);
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      const decode = () => {
        onStart?.();
        return this.#decode(data, format, input);
      };
      return await this.#decodes.run(decode, stop.signal);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", cancel);
    }
  }

  #admit(bytes: Uint8Array): { format: ImageFormat; data: Uint8Array } {
    if (bytes.byteLength === 0) throw new ServingError("BAD_REQUEST", "The image is empty");
    if (bytes.byteLength > this.#maxBytes) {
      throw new ServingError(
        "PAYLOAD_TOO_LARGE",
        `The image has ${bytes.byteLength} bytes; at most ${this.#maxBytes} are allowed`,
      );
    }
    const format = sniffFormat(bytes);
    if (!format) {
      throw new ServingError(
        "UNSUPPORTED_MEDIA_TYPE",
        "The image is not a JPEG, PNG, WebP, GIF, AVIF or TIFF",
      );
    }
    return { format, data: decodableBytes(bytes, format) };
  }

  async #decode(data: Uint8Array, format: ImageFormat, input: ImageInput): Promise<Uint8Array> {
    const box = coveredBox(input);
    const pipeline = sharp(data, {
      // Refuses what is cut short or makes no sense to libpng, libtiff, …; lets pass the warnings that many cameras'
      // JPEGs come with.
      failOn: "error",
      limitInputPixels: this.#maxPixels,
      autoOrient: true,
    })
      // Triangle filter: of libvips' kernels the nearest to training's pixels. `fastShrinkOnLoad` would save up to
      // 10 % of large photos' decode, but move some of them by a fraction of a pixel.
      .resize({ ...box, fit: "cover", kernel: "linear", fastShrinkOnLoad: false })
      .flatten({ background: "#fff" })
      .timeout({ seconds: Math.ceil(this.#timeoutMs / 1000) })
      .raw();
    const pixels = await render(pipeline, format).catch((error: Error) => {
      if (error.message.includes("pixel limit")) throw this.#tooManyPixels("The image has more pixels");
      throw new ServingError("INVALID_IMAGE", `The ${format.toUpperCase()} is damaged or cut short`);
    });
    if (pixels.byteLength !== box.width * box.height * 3) {
      throw new ServingError("INVALID_IMAGE", `The ${format.toUpperCase()} has colours of an unknown kind`);
    }
    return centre(pixels, box, input);
  }

  #tooManyPixels(found: string): ServingError {
    return new ServingError("TOO_MANY_PIXELS", `${found}; at most ${this.#maxPixels} are allowed`);
  }
}

interface Size {
  readonly width: number;
  readonly height: number;
}

/**
 * The box that the photo has to cover. Its centre is the frame: covering takes the larger of both axes' scales,
 * so this is the same as scaling the short side to `shortSide`, whatever the photo's shape, which need not be
 * known.
 */
function coveredBox({ width, height, shortSide = 0 }: ImageInput): Size {
  return { width: Math.max(shortSide, width), height: Math.max(shortSide, height) };
}

/**
 * sharp takes 16-bit images with a profile to Display P3 and leaves them there; reduced to 8 bits before the
 * profile is applied, they end in sRGB. JPEGs are spared the look (4 % of their cost): they have 8 bits.
 */
async function render(pipeline: Sharp, format: ImageFormat): Promise<Uint8Array> {
  if (format !== "jpeg" && (await pipeline.metadata()).space === "rgb16")
    pipeline.pipelineColourspace("srgb");
  // Not `toUint8Array`: sharp 0.35.5 frees the wrong one of its two arguments there, and every image stays in memory.
  return pipeline.toBuffer();
}

/**
 * Not sharp's `extract`: with it, sharp turns photos upright at full size, and a 12-megapixel one costs six times
 * as much.
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

function integer(name: string, value: number, min: number, max = Number.MAX_SAFE_INTEGER): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw new TypeError(
    `Expected an integer from ${min} to ${max} for ${name} but received ${value} of type ${typeof value}`,
  );
}
