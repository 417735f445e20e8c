import type { IncomingHttpHeaders } from "node:http";
import type { Readable } from "node:stream";
import { Busboy } from "@fastify/busboy";
import { CancelledError, ServingError } from "../errors.ts";

export interface BodyLimits {
  /** Largest encoded image, bytes. */
  readonly maxImageBytes: number;
  /** Most images. */
  readonly maxImages: number;
  /** Time for the whole body, milliseconds. */
  readonly timeoutMs: number;
  /** The least that must come in each such time. */
  readonly minBodyRate: { readonly bytes: number; readonly everyMs: number };
}

/** A form with images in it, or one image as it is. */
export type BodyKind = "form" | "image";

/** What of an `IncomingMessage` is needed here. */
export type Body = Readable & { readonly headers: IncomingHttpHeaders };

/** Takes the body's bytes as they come and gives the images in it at the end. `fail` may come at any time. */
interface Parser {
  write(chunk: Buffer): void;
  end(): Promise<readonly Uint8Array[]>;
}

type Fail = (error: unknown) => void;

const IMAGE_TYPES: ReadonlySet<string> = new Set(
  ["jpeg", "jpg", "png", "webp", "gif", "avif", "tiff"].map((format) => `image/${format}`),
);
// RFC 2046 §5.1.1: 1 to 70 characters.
const BOUNDARY = /;\s*boundary=(?:"[^"\r\n]{1,70}"|[^\s";,]{1,70})\s*(?:;|$)/i;
/** The form field that holds the images. */
const FIELD = "image";
/** Form fields that are not images are skipped, but bounded. */
const MAX_OTHER_PARTS = 16;
const MAX_FIELD_BYTES = 4096;
const MAX_PART_HEADER_BYTES = 8192;

/**
 * The kind of body these headers announce.
 *
 * @throws ServingError BAD_REQUEST without a body or with a malformed boundary, UNSUPPORTED_MEDIA_TYPE,
 *   PAYLOAD_TOO_LARGE if the announced size says so
 */
export function bodyKind(
  headers: IncomingHttpHeaders,
  { maxImageBytes, maxImages }: Pick<BodyLimits, "maxImageBytes" | "maxImages">,
): BodyKind {
  const announced = headers["content-length"];
  if (headers["transfer-encoding"] === undefined && (announced ?? "0") === "0") {
    throw new ServingError("BAD_REQUEST", `Expected an image: as the body, or as the form field "${FIELD}"`);
  }
  if ((headers["content-encoding"] ?? "identity") !== "identity") {
    throw new ServingError("UNSUPPORTED_MEDIA_TYPE", "Expected a body without Content-Encoding");
  }
  const given = headers["content-type"] ?? "";
  const type = (given.split(";", 1)[0] ?? "").trim().toLowerCase();
  if (type === "multipart/form-data") {
    if (!BOUNDARY.test(given))
      throw new ServingError("BAD_REQUEST", "Expected a boundary of 1 to 70 characters");
    if (Number(announced) > maxFormBytes(maxImageBytes, maxImages)) throw tooManyBytes(maxImageBytes);
    return "form";
  }
  if (!IMAGE_TYPES.has(type)) {
    throw new ServingError(
      "UNSUPPORTED_MEDIA_TYPE",
      `Expected multipart/form-data or one of ${[...IMAGE_TYPES].join(", ")}`,
    );
  }
  if (Number(announced) > maxImageBytes) throw tooManyBytes(maxImageBytes);
  return "image";
}

/**
 * Reads the images in a body: one raw, or every part `image` of a form, in their order. Stops reading at the first
 * thing wrong and keeps nothing; the rest of the body is then left in the stream.
 *
 * @param hold called with the size of each chunk before it is kept; may throw to refuse it
 * @throws ServingError PAYLOAD_TOO_LARGE, SLOW_REQUEST, BAD_REQUEST for a malformed form or one without an image,
 *   CANCELLED if the client goes away, and what `hold` throws
 */
export async function readImages(
  body: Body,
  kind: BodyKind,
  limits: BodyLimits,
  hold: (bytes: number) => void,
): Promise<readonly Uint8Array[]> {
  const { promise: failed, reject: fail } = Promise.withResolvers<never>();
  // It may fail when nobody listens any more.
  failed.catch(() => {});
  const parser = kind === "form" ? formParser(body.headers, limits, fail) : rawParser(limits, fail);
  const timer = setTimeout(() => {
    fail(
      new ServingError("SLOW_REQUEST", `The body did not arrive within ${Math.round(limits.timeoutMs)} ms`),
    );
  }, limits.timeoutMs);
  let received = 0;
  const count = (bytes: number) => {
    hold(bytes);
    received += bytes;
  };
  const endWatch = watchRate(() => received, limits.minBodyRate, fail);
  const { ended, stop } = pump(body, parser, count, fail);
  try {
    await Promise.race([failed, ended]);
    return await Promise.race([failed, parser.end()]);
  } finally {
    clearTimeout(timer);
    endWatch();
    stop();
  }
}

/** Fails a body of which too little came in a while: it would hold its bytes for the whole of the time-out. */
function watchRate(received: () => number, { bytes, everyMs }: BodyLimits["minBodyRate"], fail: Fail) {
  let before = 0;
  const check = () => {
    if (received() - before < bytes) {
      fail(new ServingError("SLOW_REQUEST", `The body brought less than ${bytes} bytes in ${everyMs} ms`));
    }
    before = received();
  };
  // After a turn of the event loop: what came while that stood still has not been read yet.
  const watch = setInterval(() => setImmediate(check), everyMs);
  return () => clearInterval(watch);
}

/** Feeds the parser until the body ends or `stop` is called. */
function pump(body: Body, parser: Parser, hold: (bytes: number) => void, fail: Fail) {
  const { promise: ended, resolve: end } = Promise.withResolvers<void>();
  const onData = (chunk: Buffer) => {
    try {
      hold(chunk.length);
      parser.write(chunk);
    } catch (error) {
      stop();
      fail(error);
    }
  };
  const onEnd = () => {
    stop();
    end();
  };
  const onGone = () => fail(new CancelledError());
  const stop = () => {
    body.off("data", onData).off("end", onEnd).off("close", onGone).pause();
  };
  // The error handler stays: a client may also go away after its answer, and that is nobody's concern.
  body.on("error", onGone).on("end", onEnd).on("close", onGone).on("data", onData);
  return { ended, stop };
}

function rawParser({ maxImageBytes }: BodyLimits, fail: Fail): Parser {
  const image = new Pages(maxImageBytes);
  return {
    write(chunk) {
      if (!image.add(chunk)) fail(tooManyBytes(maxImageBytes));
    },
    async end() {
      if (image.size === 0) throw new ServingError("BAD_REQUEST", "Expected an image but the body is empty");
      return [image.join()];
    },
  };
}

function formParser(
  headers: IncomingHttpHeaders,
  { maxImageBytes, maxImages }: BodyLimits,
  fail: Fail,
): Parser {
  const images: Pages[] = [];
  let received = 0;
  const malformed = () => fail(new ServingError("BAD_REQUEST", "The form is malformed or ends early"));
  const tooMany = () => fail(tooManyParts(maxImages));
  const form = createForm(headers, maxImages);
  const { promise: finished, resolve: finish } = Promise.withResolvers<void>();
  form.on("error", malformed).on("finish", finish);
  form.on("filesLimit", tooMany).on("fieldsLimit", tooMany).on("partsLimit", tooMany);
  form.on("file", (name: string | undefined, part: Readable) => {
    part.on("error", malformed);
    if (name !== FIELD) return part.resume();
    const image = new Pages(maxImageBytes);
    images.push(image);
    return part.on("data", (chunk: Buffer) => {
      if (!image.add(chunk)) fail(tooManyBytes(maxImageBytes));
    });
  });
  return {
    write(chunk) {
      received += chunk.length;
      if (received > maxFormBytes(maxImageBytes, maxImages)) fail(tooManyBytes(maxImageBytes));
      // Everything kept is bounded by the limits, so there is no back-pressure to heed.
      else form.write(chunk);
    },
    async end() {
      form.end();
      await finished;
      if (images.length === 0)
        throw new ServingError("BAD_REQUEST", `Expected a file in the form field "${FIELD}"`);
      if (images.some((image) => image.size === 0))
        throw new ServingError("BAD_REQUEST", "Expected images, not empty files");
      return images.map((image) => image.join());
    },
  };
}

function createForm(headers: IncomingHttpHeaders, maxImages: number) {
  try {
    return new Busboy({
      headers: { ...headers, "content-type": headers["content-type"] ?? "" },
      // Some clients name no file for bytes they have in memory.
      isPartAFile: (name, type, file) =>
        name === FIELD || file !== undefined || type === "application/octet-stream",
      limits: {
        files: maxImages,
        fields: MAX_OTHER_PARTS,
        parts: maxImages + MAX_OTHER_PARTS,
        fieldSize: MAX_FIELD_BYTES,
        headerPairs: 32,
        headerSize: MAX_PART_HEADER_BYTES,
      },
    });
  } catch {
    throw new ServingError("BAD_REQUEST", "The form's boundary is malformed");
  }
}

/** Least and most bytes of a page. */
const PAGE_BYTES = [4096, 256 * 1024] as const;

/**
 * Bytes, up to a limit, copied into pages: a chunk of one byte costs some 300 as an object of its own, and keeps alive
 * the up to 64 KiB it was read with. A page is as large as all before it, so at most half of the memory is empty.
 */
class Pages {
  readonly #limit: number;
  #pages: Buffer[] = [];
  /** Bytes written to the last page. */
  #filled = 0;
  size = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** False, and everything forgotten, once there are more than the limit. */
  add(chunk: Buffer): boolean {
    if (this.size + chunk.length > this.#limit) {
      this.size = Number.POSITIVE_INFINITY;
      this.#pages = [];
      return false;
    }
    for (let done = 0; done < chunk.length; ) {
      const page = this.#lastPage(chunk.length - done);
      const copied = chunk.copy(page, this.#filled, done);
      done += copied;
      this.#filled += copied;
      this.size += copied;
    }
    return true;
  }

  join(): Uint8Array {
    return Buffer.concat(this.#pages, this.size);
  }

  /** The page to write to. */
  #lastPage(wanted: number): Buffer {
    const last = this.#pages.at(-1);
    if (last && this.#filled < last.length) return last;
    const [least, most] = PAGE_BYTES;
    const left = this.#limit - this.size;
    const page = Buffer.allocUnsafeSlow(Math.min(left, most, Math.max(least, this.size, wanted)));
    this.#pages.push(page);
    this.#filled = 0;
    return page;
  }
}

/** Images, and what a form may hold besides. */
function maxFormBytes(maxImageBytes: number, maxImages: number): number {
  return (
    maxImages * (maxImageBytes + MAX_PART_HEADER_BYTES) +
    MAX_OTHER_PARTS * (MAX_FIELD_BYTES + MAX_PART_HEADER_BYTES)
  );
}

function tooManyBytes(limit: number): ServingError {
  return new ServingError("PAYLOAD_TOO_LARGE", `An image may have at most ${limit} bytes`, { limit });
}

function tooManyParts(limit: number): ServingError {
  return new ServingError(
    "PAYLOAD_TOO_LARGE",
    `A form may hold at most ${limit} images and ${MAX_OTHER_PARTS} other parts`,
    {
      limit,
    },
  );
}
