import type { IncomingMessage } from "node:http";
import { ServingError } from "../errors.ts";

/** The scheme and authority of an absolute-form address, as sent to proxies. */
const ORIGIN = /^https?:\/\/[^/?#]*/i;
/** Characters of a host and port (RFC 3986 §3.2.2), without those that only ever forge log lines or addresses. */
const HOST = /^[\w.:~!$&'()*+,;=%[\]-]*$/;

/**
 * What is wrong with a head that Node's parser let pass (RFC 9112 §3.2, §6.1, §2.3). It answers some of these by
 * itself, without a body.
 */
export function faultOf({
  httpVersion,
  headers,
  headersDistinct,
  url = "",
}: IncomingMessage): ServingError | undefined {
  if (httpVersion !== "1.1" && httpVersion !== "1.0") {
    return new ServingError("HTTP_VERSION_NOT_SUPPORTED", "Expected HTTP/1.1 or HTTP/1.0");
  }
  const hosts = headersDistinct["host"] ?? [];
  if (hosts.length > 1 || (hosts.length === 0 && httpVersion === "1.1") || !HOST.test(hosts[0] ?? "")) {
    return new ServingError("BAD_REQUEST", "Expected one valid Host header");
  }
  const coding = headers["transfer-encoding"];
  // Who speaks 1.0 knows no codings: somebody in between may have read another body than we would.
  if (coding !== undefined && (httpVersion === "1.0" || headers["content-length"] !== undefined)) {
    return new ServingError(
      "BAD_REQUEST",
      "Expected either Content-Length or, in HTTP/1.1, Transfer-Encoding",
    );
  }
  if (coding !== undefined && coding.trim().toLowerCase() !== "chunked") {
    return new ServingError("NOT_IMPLEMENTED", "Expected no Transfer-Encoding but chunked");
  }
  if (!url.startsWith("/")) return new ServingError("BAD_REQUEST", "Expected an address that begins with /");
  return undefined;
}

/** The path and query of an address, also of one in absolute form (RFC 9112 §3.2.2: a server must take it). */
export function originForm(url: string): string {
  const origin = ORIGIN.exec(url)?.[0];
  if (origin === undefined) return url;
  const rest = url.slice(origin.length);
  return rest.startsWith("/") ? rest : `/${rest}`;
}
