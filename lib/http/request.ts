import { randomUUID } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { ModelNotFoundError, ServingError } from "../errors.ts";
import { LABELS } from "../models/control.ts";
import { isLabel } from "../models/labels.ts";

const REQUEST_ID = /^[\w.-]{1,128}$/;
const MODEL_NAME = /^[a-z0-9][a-z0-9.-]{0,63}$/;
const MAX_KEY = 256;
// W3C Trace Context, https://www.w3.org/TR/trace-context/#traceparent-header: all-zero ids and version ff are invalid.
const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

/** The client's `x-request-id` if it is fit for logs and headers, else a new UUID. */
export function requestIdOf(headers: IncomingHttpHeaders): string {
  const given = headers["x-request-id"];
  return typeof given === "string" && REQUEST_ID.test(given) ? given : randomUUID();
}

/** The client's trace context, passed on as it came; an invalid one is ignored, as the standard asks. */
export function traceparentOf(headers: IncomingHttpHeaders): string | undefined {
  const given = headers["traceparent"];
  return typeof given === "string" && TRACEPARENT.test(given) ? given : undefined;
}

/**
 * Milliseconds the client gives this request: `x-request-timeout-ms`, cut down to `maxTimeoutMs`.
 *
 * @throws ServingError BAD_REQUEST unless it is a positive whole number
 */
export function timeoutOf(
  headers: IncomingHttpHeaders,
  { defaultTimeoutMs, maxTimeoutMs }: { readonly defaultTimeoutMs: number; readonly maxTimeoutMs: number },
): number {
  const given = headers["x-request-timeout-ms"];
  if (given === undefined) return Math.min(defaultTimeoutMs, maxTimeoutMs);
  if (typeof given !== "string" || !/^0*[1-9]\d*$/.test(given)) {
    throw new ServingError(
      "BAD_REQUEST",
      "Expected a positive whole number of milliseconds for x-request-timeout-ms",
    );
  }
  return Math.min(Number(given), maxTimeoutMs);
}

/** Whether the client wants neither an answer from the cache nor its own put there (RFC 9111 §5.2.1.5). */
export function noStoreOf(headers: IncomingHttpHeaders): boolean {
  return (headers["cache-control"] ?? "")
    .split(",")
    .some((directive) => directive.trim().toLowerCase() === "no-store");
}

/**
 * The version that the client names in `?version=`: a number or a label; undefined: none.
 *
 * @param url the request's address: path and query
 * @throws ServingError BAD_REQUEST for anything else
 */
export function versionOf(url: string): string | undefined {
  const question = url.indexOf("?");
  const given = question < 0 ? null : new URLSearchParams(url.slice(question)).get("version");
  return given === null ? undefined : versionName(given);
}

/** @throws ServingError BAD_REQUEST unless it is a version's number or a label */
export function versionName(given: string): string {
  if (/^[1-9]\d{0,14}$/.test(given) || isLabel(given)) return given;
  throw new ServingError("BAD_REQUEST", `Expected a number or ${LABELS.join(" or ")} for version`);
}

/**
 * The client's `x-request-key`, by which requests are shared out to a canary: those with one key have one version.
 *
 * @throws ServingError BAD_REQUEST for one that is too long
 */
export function requestKeyOf(headers: IncomingHttpHeaders): string | undefined {
  const given = headers["x-request-key"];
  if (given === undefined || given === "") return undefined;
  if (typeof given === "string" && given.length <= MAX_KEY) return given;
  throw new ServingError("BAD_REQUEST", `Expected at most ${MAX_KEY} characters for x-request-key`);
}

/** The announced size of the body in bytes; 0 if the client does not say. */
export function contentLengthOf(headers: IncomingHttpHeaders): number {
  return Number(headers["content-length"] ?? 0);
}

/**
 * The model names of `?models=a,b`, also given several times, without repeats; undefined if there is no such
 * parameter.
 *
 * @param url the request's address: path and query
 * @throws ServingError BAD_REQUEST for an empty name or more than `maxModels`
 * @throws ModelNotFoundError for a name that no model can have
 */
export function modelsOf(url: string, maxModels: number): readonly string[] | undefined {
  const question = url.indexOf("?");
  const given = question < 0 ? [] : new URLSearchParams(url.slice(question)).getAll("models");
  if (given.length === 0) return undefined;
  const names = new Set(given.flatMap((value) => value.split(",")).map((name) => name.trim()));
  if (names.has(""))
    throw new ServingError("BAD_REQUEST", "Expected names of models, joined by commas, for models");
  if (names.size > maxModels) {
    throw new ServingError(
      "BAD_REQUEST",
      `Expected at most ${maxModels} names for models but received ${names.size}`,
    );
  }
  return [...names].map(modelName);
}

/**
 * `name`, if a model can have it: a guard for logs and for the registry, where names such as `$node` mean something.
 *
 * @throws ModelNotFoundError
 */
export function modelName(name: string): string {
  if (!MODEL_NAME.test(name)) throw new ModelNotFoundError(name);
  return name;
}
