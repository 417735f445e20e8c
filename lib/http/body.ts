import type { IncomingHttpHeaders } from "node:http";
import type { Readable } from "node:stream";
import { Busboy } from "@fastify/busboy";
import { CancelledError, ServingError } from "../errors.ts";
import type { Input, Kind } from "../kinds/kind.ts";
import { FORM, JSON_TYPE, mediaTypeOf, takes } from "./kind.ts";
import { giveUp } from "./send.ts";

export interface BodyLimits {
  /** Largest input, bytes as it is sent. */
  readonly maxBytes: number;
  /** Most inputs. */
  readonly maxInputs: number;
  /** Time for the whole body, milliseconds. */
  readonly timeoutMs: number;
  /** The least that must come in each such time. */
  readonly minBodyRate: { readonly bytes: number; readonly everyMs: number };
}

/** A form with inputs in it, JSON with one or several, or one input as it is. */
export type BodyForm = "form" | "json" | "raw";

/** What of an `IncomingMessage` is needed here. */
export type Body = Readable & { readonly headers: IncomingHttpHeaders };

/** Takes the body's bytes as they come and gives the inputs in it at the end. `fail` may come at any time. */
interface Parser {
  write(chunk: Buffer): void;
  end(): Promise<readonly Input[]>;
}

type Fail = (error: unknown) => void;

/** What inputs are called, in messages and in forms. */
type Named = Pick<Kind, "noun" | "field">;

// RFC 2046 §5.1.1: 1 to 70 characters.
const BOUNDARY = /;\s*boundary=(?:"[^"\r\n]{1,70}"|[^\s";,]{1,70})\s*(?:;|$)/i;
/** Form fields that are no inputs are skipped, but bounded. */
const MAX_OTHER_PARTS = 16;
const MAX_FIELD_BYTES = 4096;
const MAX_PART_HEADER_BYTES = 8192;

/**
 * The form of body these headers announce.
 *
 * @throws ServingError BAD_REQUEST without a body or with a malformed boundary, UNSUPPORTED_MEDIA_TYPE,
 *   PAYLOAD_TOO_LARGE if the announced size says so
 */
export function bodyForm(
  headers: IncomingHttpHeaders,
  kind: Kind,
  limits: Pick<BodyLimits, "maxBytes" | "maxInputs">,
): BodyForm {
  const announced = headers["content-length"];
  if (headers["transfer-encoding"] === undefined && (announced ?? "0") === "0") {
    const inForm = kind.field === undefined ? "" : `, or as the form field "${kind.field}"`;
    throw new ServingError("BAD_REQUEST", `Expected ${withArticle(kind.noun)}: as the body${inForm}`);
  }
  if ((headers["content-encoding"] ?? "identity") !== "identity") {
    throw new ServingError("UNSUPPORTED_MEDIA_TYPE", "Expected a body without Content-Encoding");
  }
  const type = mediaTypeOf(headers);
  if (!takes(kind, type)) {
    const types = [...(kind.field ? [FORM] : []), ...(kind.schema ? [JSON_TYPE] : []), ...kind.accepts];
    throw new ServingError("UNSUPPORTED_MEDIA_TYPE", `Expected one of ${types.join(", ")}`);
  }
  if (type === FORM && !BOUNDARY.test(headers["content-type"] ?? "")) {
    throw new ServingError("BAD_REQUEST", "Expected a boundary of 1 to 70 characters");
  }
  const most = type === FORM ? maxFormBytes(limits) : limits.maxBytes;
  if (Number(announced) > most) throw tooManyBytes(kind, limits);
  return type === FORM ? "form" : type === JSON_TYPE ? "json" : "raw";
}

/**
 * Reads the inputs in a body: one raw, every part of a form in the kind's field, in their order, or JSON: one input, or
 * several as `{"items": […]}`. Stops reading at the first thing wrong and keeps nothing; the rest of the body is then
 * left in the stream.
 *
 * @param hold called with the size of each chunk before it is kept; may throw to refuse it
 * @throws ServingError PAYLOAD_TOO_LARGE, SLOW_REQUEST, BAD_REQUEST for a malformed body or one without an input,
 *   CANCELLED if the client goes away, and what `hold` throws
 */
export async function readInputs(
  body: Body,
  form: BodyForm,
  kind: Named,
  limits: BodyLimits,
  hold: (bytes: number) => void,
): Promise<readonly Input[]> {
  const { promise: failed, reject: fail } = Promise.withResolvers<never>();
  // It may fail when nobody listens any more.
  failed.catch(() => {});
  const parser =
    form === "form"
      ? formParser(body.headers, kind, limits, fail)
      : rawParser(mediaTypeOf(body.headers), kind, limits, fail);
  const timer = setTimeout(() => {
    fail(
      new ServingError("SLOW_REQUEST", `The body did not arrive within ${Math.round(limits.timeoutMs)} ms`),
    );
  }, limits.timeoutMs);
  let received = 0;
  let pieces = 0;
  const count = (bytes: number) => {
    hold(bytes);
    received += bytes;
    if (++pieces <= FREE_PIECES || received >= MIN_PIECE_BYTES * pieces) return;
    giveUp(body);
    throw tooSmallPieces();
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

function rawParser(type: string, kind: Named, limits: BodyLimits, fail: Fail): Parser {
  const pages = new Pages(limits.maxBytes);
  return {
    write(chunk) {
      if (!pages.add(chunk)) fail(tooManyBytes(kind, limits));
    },
    async end() {
      if (pages.size === 0) {
        throw new ServingError("BAD_REQUEST", `Expected ${withArticle(kind.noun)} but the body is empty`);
      }
      const bytes = pages.join();
      return type === JSON_TYPE ? jsonInputs(bytes, limits) : [{ bytes, type }];
    },
  };
}

/** The one input that a JSON body is, or the several in its `items`. */
function jsonInputs(bytes: Uint8Array, { maxInputs }: BodyLimits): readonly Input[] {
  const items = itemsOf(parseJson(bytes));
  if (!items) return [{ bytes, type: JSON_TYPE }];
  if (items.length === 0) throw new ServingError("BAD_REQUEST", "Expected at least one of items");
  if (items.length > maxInputs) {
    throw new ServingError("PAYLOAD_TOO_LARGE", `A body may hold at most ${maxInputs} items`, {
      limit: maxInputs,
    });
  }
  return items.map((item) => ({ bytes: Buffer.from(JSON.stringify(item)), type: JSON_TYPE }));
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new ServingError("BAD_REQUEST", "The body is no JSON");
  }
}

function itemsOf(value: unknown): readonly unknown[] | undefined {
  if (typeof value !== "object" || value === null || Object.keys(value).join() !== "items") return undefined;
  const { items } = value as { readonly items: unknown };
  return Array.isArray(items) ? items : undefined;
}

function formParser(headers: IncomingHttpHeaders, kind: Named, limits: BodyLimits, fail: Fail): Parser {
  const inputs: { readonly pages: Pages; readonly type: string }[] = [];
  let received = 0;
  const malformed = () => fail(new ServingError("BAD_REQUEST", "The form is malformed or ends early"));
  const tooMany = () => fail(tooManyParts(kind, limits));
  const form = createForm(headers, kind, limits);
  const { promise: finished, resolve: finish } = Promise.withResolvers<void>();
  form.on("error", malformed).on("finish", finish);
  form.on("filesLimit", tooMany).on("fieldsLimit", tooMany).on("partsLimit", tooMany);
  form.on("file", (name: string | undefined, part: Readable, _file, _encoding, type: string) => {
    part.on("error", malformed);
    if (name !== kind.field) return part.resume();
    const pages = new Pages(limits.maxBytes);
    inputs.push({ pages, type: type.toLowerCase() });
    return part.on("data", (chunk: Buffer) => {
      if (!pages.add(chunk)) fail(tooManyBytes(kind, limits));
    });
  });
  return {
    write(chunk) {
      received += chunk.length;
      if (received > maxFormBytes(limits)) fail(tooManyBytes(kind, limits));
      // Everything kept is bounded by the limits, so there is no back-pressure to heed.
      else form.write(chunk);
    },
    async end() {
      form.end();
      await finished;
      if (inputs.length === 0)
        throw new ServingError("BAD_REQUEST", `Expected a file in the form field "${kind.field}"`);
      if (inputs.some(({ pages }) => pages.size === 0))
        throw new ServingError("BAD_REQUEST", `Expected ${kind.noun}s, not empty files`);
      return inputs.map(({ pages, type }) => ({ bytes: pages.join(), type }));
    },
  };
}

function createForm(headers: IncomingHttpHeaders, kind: Named, { maxInputs }: BodyLimits) {
  try {
    return new Busboy({
      headers: { ...headers, "content-type": headers["content-type"] ?? "" },
      // Some clients name no file for bytes they have in memory.
      isPartAFile: (name, type, file) =>
        name === kind.field || file !== undefined || type === "application/octet-stream",
      limits: {
        files: maxInputs,
        fields: MAX_OTHER_PARTS,
        parts: maxInputs + MAX_OTHER_PARTS,
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

/** Inputs, and what a form may hold besides. */
function maxFormBytes({ maxBytes, maxInputs }: Pick<BodyLimits, "maxBytes" | "maxInputs">): number {
  return (
    maxInputs * (maxBytes + MAX_PART_HEADER_BYTES) +
    MAX_OTHER_PARTS * (MAX_FIELD_BYTES + MAX_PART_HEADER_BYTES)
  );
}

/**
 * Each piece of a body, be it a chunk or what one read gave, costs some microseconds, however small: a megabyte in chunks
 * of one byte is several seconds of everyone's time. Chunks have kilobytes, packets a thousand bytes and more; the first
 * pieces may be of any size.
 */
const FREE_PIECES = 1000;
const MIN_PIECE_BYTES = 128;

function tooSmallPieces(): ServingError {
  return new ServingError("BAD_REQUEST", `Expected the body in pieces of at least ${MIN_PIECE_BYTES} bytes`);
}

function tooManyBytes({ noun }: Named, { maxBytes }: Pick<BodyLimits, "maxBytes">): ServingError {
  const message = `${capital(withArticle(noun))} may have at most ${maxBytes} bytes`;
  return new ServingError("PAYLOAD_TOO_LARGE", message, { limit: maxBytes });
}

function tooManyParts({ noun }: Named, { maxInputs }: BodyLimits): ServingError {
  const message = `A form may hold at most ${maxInputs} ${noun}s and ${MAX_OTHER_PARTS} other parts`;
  return new ServingError("PAYLOAD_TOO_LARGE", message, { limit: maxInputs });
}

function withArticle(noun: string): string {
  return /^[aeiou]/.test(noun) ? `an ${noun}` : `a ${noun}`;
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
