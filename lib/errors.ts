import { Errors } from "moleculer";

/**
 * Every error a client can meet: HTTP status, whether the same request may succeed if sent again, and what it
 * means. The code travels as Moleculer's `type`, so an error keeps its row when it crosses the wire.
 */
export const ERRORS = {
  BAD_REQUEST: { status: 400, retryable: false, about: "the request is malformed" },
  UNAUTHORIZED: { status: 401, retryable: false, about: "no API key, or an unknown one" },
  FORBIDDEN: { status: 403, retryable: false, about: "the API key does not allow this" },
  NOT_FOUND: { status: 404, retryable: false, about: "no such address" },
  MODEL_NOT_FOUND: { status: 404, retryable: false, about: "no such model" },
  VERSION_NOT_FOUND: {
    status: 404,
    retryable: false,
    about: "the model does not serve that version, or none has that label",
  },
  METHOD_NOT_ALLOWED: { status: 405, retryable: false, about: "the address does not know this method" },
  SLOW_REQUEST: { status: 408, retryable: true, about: "the client sent its request too slowly" },
  CONFLICT: { status: 409, retryable: true, about: "someone else changed the same at the same time" },
  PAYLOAD_TOO_LARGE: { status: 413, retryable: false, about: "too many bytes or too many files" },
  UNSUPPORTED_MEDIA_TYPE: { status: 415, retryable: false, about: "not a supported type of content" },
  EXPECTATION_FAILED: { status: 417, retryable: false, about: "an Expect header other than 100-continue" },
  INVALID_IMAGE: { status: 422, retryable: false, about: "the image cannot be decoded" },
  INVALID_VIDEO: { status: 422, retryable: false, about: "the clip cannot be decoded, or takes too much" },
  TOO_MANY_PIXELS: {
    status: 422,
    retryable: false,
    about: "the image, or a clip's frame, has too many pixels",
  },
  VIDEO_TOO_LONG: { status: 422, retryable: false, about: "the clip is too long" },
  RATE_LIMITED: { status: 429, retryable: true, about: "this client is over its rate" },
  HEADERS_TOO_LARGE: { status: 431, retryable: false, about: "the request's headers are too large" },
  CANCELLED: { status: 499, retryable: false, about: "the client hung up" },
  INTERNAL: { status: 500, retryable: false, about: "a fault of ours; the log has it under the requestId" },
  PREDICTION_FAILED: { status: 500, retryable: false, about: "the model failed on this input" },
  POISON_REQUEST: {
    status: 500,
    retryable: false,
    about: "every engine or node that tried this request died",
  },
  DECODER_MISSING: {
    status: 501,
    retryable: false,
    about: "this server lacks a program that reads such input; the message says which",
  },
  NOT_IMPLEMENTED: { status: 501, retryable: false, about: "a Transfer-Encoding other than chunked" },
  ENGINE_CRASHED: { status: 503, retryable: true, about: "the engine died under this request" },
  QUEUE_FULL: { status: 503, retryable: true, about: "the queue is full" },
  MODEL_UNAVAILABLE: { status: 503, retryable: true, about: "no replica of the model is up" },
  DRAINING: { status: 503, retryable: true, about: "the node is shutting down" },
  DEADLINE_EXCEEDED: { status: 504, retryable: false, about: "the deadline passed" },
  HTTP_VERSION_NOT_SUPPORTED: { status: 505, retryable: false, about: "neither HTTP/1.1 nor HTTP/1.0" },
} as const;

export type ErrorCode = keyof typeof ERRORS;

/** An error of the table above. `code` is the HTTP status and `type` the table's key, as Moleculer names them. */
export class ServingError extends Errors.MoleculerRetryableError {
  constructor(type: ErrorCode, message: string, data?: Record<string, unknown>) {
    super(message, ERRORS[type].status, type, data);
    this.name = "ServingError";
    this.retryable = ERRORS[type].retryable;
  }
}

export class QueueFullError extends ServingError {
  constructor(model: string, limit: number) {
    super("QUEUE_FULL", `The queue of ${model} is full (${limit} items)`, { model, limit });
  }
}

export class DeadlineExceededError extends ServingError {
  /** @param stage what was going on: "queue", "compute", "decode" … */
  constructor(stage: string) {
    super("DEADLINE_EXCEEDED", `The deadline passed (${stage})`, { stage });
  }
}

export class CancelledError extends ServingError {
  constructor() {
    super("CANCELLED", "The client hung up");
  }
}

export class DrainingError extends ServingError {
  constructor() {
    super("DRAINING", "The node is shutting down");
  }
}

export class EngineCrashedError extends ServingError {
  /** Someone else killed it: the system for want of memory, a person. What it computed has not to do with it. */
  readonly killed: boolean;

  constructor(model: string, reason: string, { killed = false }: { readonly killed?: boolean } = {}) {
    super("ENGINE_CRASHED", `The engine of ${model} died: ${withoutFolders(reason)}`, { model });
    this.killed = killed;
  }
}

export class PoisonError extends ServingError {
  constructor(model: string) {
    super("POISON_REQUEST", `The engine of ${model} died under this input`, { model });
  }
}

export class PredictionFailedError extends ServingError {
  constructor(model: string, reason: string) {
    super("PREDICTION_FAILED", `${model} failed on this input: ${withoutFolders(reason)}`, { model });
  }
}

export class ModelNotFoundError extends ServingError {
  constructor(model: string) {
    super("MODEL_NOT_FOUND", `Unknown model "${model.slice(0, 100)}"`);
  }
}

export class VersionNotFoundError extends ServingError {
  /** @param wanted a version's number, or a label */
  constructor(model: string, wanted: string) {
    super("VERSION_NOT_FOUND", `${model} serves no version "${wanted.slice(0, 40)}"`, { model });
  }
}

export class ConflictError extends ServingError {
  constructor(model: string, by: string) {
    super("CONFLICT", `${model} was changed at the same time by ${by}`, { model });
  }
}

export class ModelUnavailableError extends ServingError {
  constructor(model: string) {
    super("MODEL_UNAVAILABLE", `No replica of ${model} is up`, { model });
  }
}

/** Moleculer's own error types, in our terms. */
const MOLECULER_TYPES: Readonly<Record<string, ErrorCode>> = {
  REQUEST_TIMEOUT: "DEADLINE_EXCEEDED",
  REQUEST_SKIPPED: "DEADLINE_EXCEEDED",
  REQUEST_REJECTED: "MODEL_UNAVAILABLE",
  SERVICE_NOT_FOUND: "MODEL_UNAVAILABLE",
  SERVICE_NOT_AVAILABLE: "MODEL_UNAVAILABLE",
  VALIDATION_ERROR: "BAD_REQUEST",
};

/** The one shape of an error on the wire. */
export interface WireError {
  code: ErrorCode;
  message: string;
  retryable: boolean;
  requestId?: string;
}

/**
 * Any thrown value as the client may see it. What is not in the table is INTERNAL and its message stays in the log:
 * it may hold paths or data.
 */
export function toWire(error: unknown, requestId?: string): WireError {
  const code = errorCode(error);
  const own = error instanceof Error && (error as { type?: unknown }).type === code;
  const message = own || code === "BAD_REQUEST" ? (error as Error).message : sentence(ERRORS[code].about);
  return { code, message, retryable: ERRORS[code].retryable, ...(requestId ? { requestId } : {}) };
}

/** The row of the table a thrown value belongs to. */
export function errorCode(error: unknown): ErrorCode {
  const { type } = (error ?? {}) as { type?: unknown };
  if (typeof type !== "string") return "INTERNAL";
  if (Object.hasOwn(ERRORS, type)) return type as ErrorCode;
  return Object.hasOwn(MOLECULER_TYPES, type) ? (MOLECULER_TYPES[type] ?? "INTERNAL") : "INTERNAL";
}

/** For the log: what clients do not read is in the cause. */
export function wholeReason({ message, cause }: Error): string {
  return cause instanceof Error ? `${message}: ${cause.message}` : message;
}

/** Runtimes name files in full; where they lie here is no client's business. */
export function withoutFolders(reason: string): string {
  return reason.replace(/(?:file:\/\/)?\/(?:[\w.@+~-]+\/)+/g, "…/");
}

function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
