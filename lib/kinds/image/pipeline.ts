import { hash } from "node:crypto";
import { availableParallelism } from "node:os";
import { ServingError } from "../../errors.ts";
import { createScope, type Scope } from "../../request/scope.ts";
import { Semaphore } from "../../request/semaphore.ts";
import { type Allowance, DecoderKilledError, Decoders, type Verdict } from "./decoders.ts";
import type { Decoded, Job, Size } from "./decoding.ts";
import { sniffFormat } from "./format.ts";
import type { ImageFormat, ImageInfo, ImageInput } from "./input.ts";
import { screen } from "./screen/screen.ts";
import type { Screened } from "./screen/screened.ts";

export interface ImagePipelineOptions {
  /**
   * Largest encoded image, in bytes. At least 1.
   *
   * @default 10_485_760 (10 MiB)
   */
  maxBytes?: number;
  /**
   * Largest decoded image, in pixels of its first frame. At least 1.
   *
   * @default 40_000_000
   */
  maxPixels?: number;
  /**
   * Memory that all decodes together may need, in bytes, and each of them alone. At least 1. It depends on format and
   * depth: 40 megapixels take 4 bytes each as a progressive JPEG, 8 as WebP or as an interlaced 16-bit PNG with alpha.
   * AVIF takes 17 to 30, so that its limit is 16 to 28 megapixels.
   *
   * @default 469_762_048 (448 MiB)
   */
  maxDecodeBytes?: number;
  /**
   * Images decoded at once. At least 1. Each in a process of its own, of about 80 MB when idle, of which half is
   * shared.
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
  /** Told of every decoder that ended under an image: it took too much, or died. */
  onDecoderEnded?: ((verdict: Verdict) => void) | undefined;
}

/** The scope of a request, or what is known of it. */
export interface PrepareOptions extends Partial<Scope> {
  /** Called when its decode begins: what came before was waiting. */
  readonly onStart?: () => void;
}

/** Of what screening counted, so that decoders may take more than was measured: other content, other machines. */
const MEMORY_SLACK_BYTES = 128 * 2 ** 20;
const CPU_SLACK_MS = 500;
const CPU_FACTOR = 4;
/** The encoded bytes in the decoder: as they arrive, as a message, and in libvips' hands. */
const COPIES = 3;
/** Rows of the image that libvips holds while it scales: of one 65,000 pixels wide they took 180 MB. */
const ROWS = 350;
/** Of an encoded byte, from here to the decoder. */
const TRANSFER_MS = 10e-6;
/** Of a pixel of the result, on its way through libvips: bytes, and milliseconds to scale and convert it. */
const OUTPUT_BYTES = 12;
const OUTPUT_MS = 50e-6;

/**
 * From here on an image leaves a decoder to the others: a 12-megapixel JPEG takes 50 to 350 ms, as a PNG or WebP 300 to
 * 450. What is below may take all decoders: nobody waits for it for long.
 */
const HEAVY_MS = 500;
const HEAVY_BYTES = 64 * 2 ** 20;

/**
 * Encoded photos in, pixels for a model out.
 *
 * Three walls stand before foreign bytes. The format's own screening walks the header here, in bounded time, and counts
 * pixels, memory and time before any pixel is decoded; the decoder gets what it left. Decoding happens in processes of
 * its own, which hold nothing else. And one that takes more than its image may, memory or time, is ended; the image is
 * then refused.
 *
 * What a model sees: the photo turned upright (EXIF), in sRGB (embedded profiles are applied, CMYK and greyscale
 * converted, 16 bits reduced to 8), transparent parts on white, scaled with an antialiased triangle filter.
 * White is what nearly every page shows behind a transparent picture; dropping the alpha channel instead, as PIL's
 * `convert("RGB")` does, uncovers colours that nobody was meant to see. Photos for training have no alpha.
 */
export class ImagePipeline {
  readonly #maxBytes: number;
  readonly #maxPixels: number;
  readonly #maxDecodeBytes: number;
  readonly #timeoutMs: number;
  readonly #decoders: Decoders;
  readonly #line: Semaphore;
  /** What was found on the last look at an image: it is inspected, then prepared, once for each size of a model. */
  readonly #admitted = new WeakMap<Uint8Array, Admitted>();

  /** @throws {TypeError} on an option out of its range */
  constructor(options: ImagePipelineOptions = {}) {
    const {
      maxBytes = 10 * 2 ** 20,
      maxPixels = 40e6,
      maxDecodeBytes = 448 * 2 ** 20,
      concurrency = Math.min(availableParallelism(), 3),
      maxWaiting = 128,
      timeoutMs = 10_000,
      onDecoderEnded,
    } = options;
    this.#maxBytes = integer("maxBytes", maxBytes, 1);
    this.#maxPixels = integer("maxPixels", maxPixels, 1);
    this.#maxDecodeBytes = integer("maxDecodeBytes", maxDecodeBytes, 1);
    this.#timeoutMs = integer("timeoutMs", timeoutMs, 1, 3_600_000);
    this.#decoders = new Decoders(integer("concurrency", concurrency, 1), { onEnded: onDecoderEnded });
    this.#line = new Semaphore({
      name: "the image decoder",
      stage: "decode",
      permits: concurrency,
      maxWaiting: integer("maxWaiting", maxWaiting, 0),
      capacity: maxDecodeBytes,
    });
  }

  /** Images being decoded. */
  get active(): number {
    return this.#line.active;
  }

  /** Images waiting for their decode. */
  get waiting(): number {
    return this.#line.waiting;
  }

  /** Whether decoders are up, or are being replaced with success. */
  get ready(): boolean {
    return this.#decoders.ready;
  }

  /** Of the decoders that are up: their memory and CPU time are not this process's. */
  get decoderPids(): readonly number[] {
    return this.#decoders.pids;
  }

  /**
   * Starts the decoders ahead of the first image, which otherwise starts its own. Resolves when one is up.
   *
   * @throws {AggregateError} if none can be started
   */
  start(): Promise<void> {
    return this.#decoders.start();
  }

  /** Ends the decoders; what they decode is lost. */
  close(): void {
    this.#decoders.close();
  }

  /**
   * What the header says; no pixel is decoded, and no decoder's code is run. Takes at most a few milliseconds for each
   * mebibyte, whatever the bytes are.
   *
   * @throws {ServingError} BAD_REQUEST (empty), PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, INVALID_IMAGE,
   *   TOO_MANY_PIXELS
   */
  async inspect(bytes: Uint8Array): Promise<ImageInfo> {
    const { format, screened } = this.#admit(bytes);
    const { width, height } = upright(screened);
    return { width, height, format, bytes: bytes.byteLength, sha256: hash("sha256", bytes, "hex") };
  }

  /**
   * The first frame as the model wants it: `[height, width, 3]` uint8 RGB. Resize semantics:
   * {@link ImageInput.shortSide}; a `shortSide` too small for the frame is raised until the photo covers it. Small
   * photos are enlarged.
   *
   * Images wait for a decoder; small ones pass large ones. An image that takes far more memory or time than its like is
   * INVALID_IMAGE.
   *
   * @throws {ServingError} as `inspect`, and QUEUE_FULL, DEADLINE_EXCEEDED, CANCELLED, INTERNAL (no decoder)
   */
  async prepare(bytes: Uint8Array, input: ImageInput, options: PrepareOptions = {}): Promise<Uint8Array> {
    const { onStart, ...parts } = options;
    const given = createScope(parts);
    const deadline = Math.min(given.deadline, given.clock.now() + this.#timeoutMs);
    const { format, screened } = this.#admit(bytes);
    const { width, height } = input;
    const box = coveredBox(input);
    const expectedMs =
      screened.expectedMs + box.width * box.height * OUTPUT_MS + bytes.byteLength * TRANSFER_MS;
    const memoryBytes =
      screened.memoryBytes +
      ROWS * screened.width * screened.pixelBytes +
      COPIES * bytes.byteLength +
      OUTPUT_BYTES * box.width * box.height;
    const decode = () => {
      onStart?.();
      const job = {
        parts: screened.parts(),
        format,
        box,
        frame: { width, height },
        maxPixels: this.#maxPixels,
      };
      return this.#decode(job, {
        memoryBytes: memoryBytes + MEMORY_SLACK_BYTES,
        cpuMs: CPU_SLACK_MS + CPU_FACTOR * expectedMs,
        wallMs: this.#timeoutMs,
      });
    };
    const heavy = expectedMs > HEAVY_MS || memoryBytes > HEAVY_BYTES;
    return this.#line.run(decode, { ...given, deadline }, { expectedMs, weight: heavy ? memoryBytes : 0 });
  }

  #admit(bytes: Uint8Array): Admitted {
    const known = this.#admitted.get(bytes);
    if (known) return known;
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
    const screened = screen(bytes, format);
    const { width, height } = upright(screened);
    if (screened.pixels > this.#maxPixels) throw this.#tooManyPixels(`${width}×${height} pixels`);
    if (screened.memoryBytes > this.#maxDecodeBytes) {
      throw new ServingError(
        "TOO_MANY_PIXELS",
        `${width}×${height} pixels take ${mebibytes(screened.memoryBytes)} MiB to decode as this kind of ${format.toUpperCase()}; at most ${mebibytes(this.#maxDecodeBytes)} are allowed`,
      );
    }
    const admitted = { format, screened };
    this.#admitted.set(bytes, admitted);
    return admitted;
  }

  async #decode(job: Job, allowance: Allowance): Promise<Uint8Array> {
    const decoded = await this.#decoders.decode(job, allowance).catch((error): Decoded => {
      // What ended its decoder is damaged, or made to look harmless: not for us to tell which.
      if (error instanceof DecoderKilledError) return { ok: false, reason: "damaged" };
      throw error;
    });
    if (decoded.ok) return decoded.pixels;
    const format = job.format.toUpperCase();
    if (decoded.reason === "pixels") throw this.#tooManyPixels("The image has more pixels");
    throw new ServingError(
      "INVALID_IMAGE",
      decoded.reason === "colours"
        ? `The ${format} has colours of an unknown kind`
        : `The ${format} is damaged or cut short`,
    );
  }

  #tooManyPixels(found: string): ServingError {
    return new ServingError("TOO_MANY_PIXELS", `${found}; at most ${this.#maxPixels} are allowed`);
  }
}

interface Admitted {
  readonly format: ImageFormat;
  readonly screened: Screened;
}

/** The size of the photo as it is looked at. */
function upright({ width, height, orientation }: Screened): Size {
  return orientation >= 5 ? { width: height, height: width } : { width, height };
}

const mebibytes = (bytes: number) => Math.ceil(bytes / 2 ** 20);

/**
 * The box that the photo has to cover. Its centre is the frame: covering takes the larger of both axes' scales,
 * so this is the same as scaling the short side to `shortSide`, whatever the photo's shape, which need not be
 * known.
 */
function coveredBox({ width, height, shortSide = 0 }: ImageInput): Size {
  return { width: Math.max(shortSide, width), height: Math.max(shortSide, height) };
}

function integer(name: string, value: number, min: number, max = Number.MAX_SAFE_INTEGER): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw new TypeError(
    `Expected an integer from ${min} to ${max} for ${name} but received ${value} of type ${typeof value}`,
  );
}
