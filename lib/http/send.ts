import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { WireError } from "../errors.ts";
import { answered, note } from "./access.ts";
import type { Answer } from "./answer.ts";

/** How long, and how much of, an unwanted request is read and thrown away after its answer. */
export const LINGER_MS = 2000;
const LINGER_BYTES = 32 * 1024 * 1024;
/** What a piece of it counts as, at least: a tiny chunk takes as long to read. */
const LINGER_PIECE_BYTES = 4096;
/** A refused body of at most this is read and dropped rather than paid for with the connection. */
const DROPPED_BYTES = 256 * 1024;

/** Requests whose body is given up. */
const given = new WeakSet<object>();

/**
 * Gives a body up: what still comes of it is read as bytes and dropped, for not even that may cost time. 64 KiB hold
 * 10,000 chunks of one byte, and Node's parser calls for each of them. The mark is Node's own, for bodies that nobody
 * reads: the parser passes by what it has at hand.
 */
export function giveUp(body: object): void {
  given.add(body);
  Object.assign(body, { _dumped: true });
}

export const REQUEST_ID = "x-request-id";

/** Headers of every answer, the page included. */
export const SECURITY_HEADERS: Map<string, string> = new Map([
  ["content-security-policy", "default-src 'self'; img-src 'self' blob:"],
  ["x-content-type-options", "nosniff"],
  ["referrer-policy", "no-referrer"],
]);

/**
 * Sends an answer; does nothing if the client is gone. Closes the connection if the request is still coming in, but for
 * small ones that are refused for want of room: under a flood, new connections would cost more than the bodies.
 */
export function send(req: IncomingMessage, res: ServerResponse, { status, body, headers }: Answer): void {
  if (res.headersSent || res.destroyed) return;
  const text = typeof body === "string" ? body : JSON.stringify(body);
  // Of a small body Node reads and drops the rest by itself.
  const ends = req.complete || (status === 503 && isSmall(req) && res.shouldKeepAlive);
  if (!ends) res.shouldKeepAlive = false;
  res.writeHead(status, {
    "content-type": "application/json; charset=utf-8",
    "cache-control": "no-store",
    "content-length": Buffer.byteLength(text),
    ...headers,
  });
  if (ends) res.end(text);
  else res.write(text);
  note(res, codeOf(body));
  answered(res);
  if (!ends) linger(req, res);
}

function codeOf(body: unknown): { readonly code?: string } {
  const { error } = (body ?? {}) as { readonly error?: Partial<WireError> };
  return error?.code === undefined ? {} : { code: error.code };
}

/** Whether the whole body is announced, small, and sent without being asked for. */
function isSmall({ headers }: IncomingMessage): boolean {
  return Number(headers["content-length"]) <= DROPPED_BYTES && headers.expect === undefined;
}

/**
 * Ends a response whose request is still coming in. The answer is out already; but to close a socket with unread bytes
 * in it resets the connection, and many a client then loses the answer. So the rest is read and dropped for a
 * moment (RFC 9112 §9.6).
 */
function linger(req: IncomingMessage, res: ServerResponse): void {
  let bytes = 0;
  const close = () => {
    clearTimeout(timer);
    res.end();
  };
  const timer = setTimeout(close, LINGER_MS);
  req.once("end", close).once("close", close);
  const drop = (chunk: Buffer) => {
    bytes += Math.max(chunk.length, LINGER_PIECE_BYTES);
    if (bytes > LINGER_BYTES) close();
  };
  if (given.has(req)) setImmediate(readUnparsed, req.socket, drop);
  else req.on("data", drop).resume();
}

/** Takes a connection from Node's parser. Not while that is at it. */
function readUnparsed(socket: Socket, take: (chunk: Buffer) => void): void {
  // Who listens to a socket's bytes gets them instead of the parser; the parser's own listener then goes, too.
  socket.on("data", take).removeAllListeners("data");
  socket.on("data", take).resume();
}
