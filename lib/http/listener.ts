import { randomUUID } from "node:crypto";
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { setImmediate as turn } from "node:timers/promises";
import { type ErrorCode, ServingError, type WireError } from "../errors.ts";
import { StartError } from "../start-error.ts";
import { type Access, type RecordAccess, watch } from "./access.ts";
import { type Answer, errorAnswer } from "./answer.ts";
import { Clients } from "./client.ts";
import { type Connection, Connections } from "./connections.ts";
import { faultOf, originForm } from "./head.ts";
import type { GatewayOptions } from "./options.ts";
import { requestIdOf } from "./request.ts";
import { LINGER_MS, REQUEST_ID, send } from "./send.ts";

/** Node's default length of the kernel's queue of connections that wait to be accepted. */
const BACKLOG = 511;
/** Requests that may wait on a connection for the answers to those before them; browsers never send a second. */
const MAX_PIPELINED = 16;
/** How often stalled clients are looked for, milliseconds. */
const SWEEP_MS = 1000;

export type ListenerOptions = Pick<
  GatewayOptions,
  | "maxHeaderBytes"
  | "bodyTimeoutMs"
  | "writeTimeoutMs"
  | "keepAliveTimeoutMs"
  | "maxConnections"
  | "trustedProxies"
>;

type Handler = (req: IncomingMessage, res: ServerResponse) => void;

/** What Node's parser complains of, and what we make of it; everything else is a bad request. */
const COMPLAINTS: Readonly<Record<string, readonly [ErrorCode, string]>> = {
  HPE_INVALID_VERSION: ["HTTP_VERSION_NOT_SUPPORTED", "Expected HTTP/1.1 or HTTP/1.0"],
  HPE_PAUSED_H2_UPGRADE: ["HTTP_VERSION_NOT_SUPPORTED", "Expected HTTP/1.1 or HTTP/1.0"],
  ERR_HTTP_REQUEST_TIMEOUT: ["SLOW_REQUEST", "The request did not arrive in time"],
};

/**
 * A Node HTTP server that bounds what a client can hold (size of the head, time for head and body, time to take the
 * answer, idle time, connections, requests at once on one of them), answers what is not HTTP in the shape of our errors,
 * and ends without breaking off an answer.
 */
export class Listener {
  readonly server: Server;
  readonly #connections: Connections;
  readonly #options: ListenerOptions;
  readonly #handler: Handler;
  readonly #record: RecordAccess;
  #draining = false;
  /** Connections and requests so far. */
  #arrivals = 0;

  /** @param record told of every request, also of those that never reach the handler */
  constructor(options: ListenerOptions, handler: Handler, record: RecordAccess = () => {}) {
    this.#options = options;
    this.#handler = handler;
    this.#record = record;
    this.#connections = new Connections(options.maxConnections);
    const clients = new Clients(options.trustedProxies);
    this.server = createServer({
      maxHeaderSize: options.maxHeaderBytes,
      headersTimeout: options.bodyTimeoutMs,
      // Only for bodies that nobody reads; the others have their own, exact deadline.
      requestTimeout: 2 * options.bodyTimeoutMs,
      connectionsCheckingInterval: 1000,
      keepAliveTimeout: options.keepAliveTimeoutMs,
      noDelay: true,
      // Node's own refusal has no body; `faultOf` looks for it.
      requireHostHeader: false,
    });
    const onRequest = (req: IncomingMessage, res: ServerResponse) => this.#enter(req, res);
    this.server.on("request", onRequest);
    // The handler asks for the body with `writeContinue()`, so one that is refused is never sent.
    this.server.on("checkContinue", onRequest);
    this.server.on("checkExpectation", (req, res) => {
      watch(req, res, record);
      refuse(req, res, new ServingError("EXPECTATION_FAILED", "Expected no Expect but 100-continue"));
    });
    this.server.on("connect", (_req: IncomingMessage, socket: Socket) => {
      // Node has let go of it: a client that resets the connection would end the process.
      socket.on("error", () => {});
      this.#answerRaw(socket, rawAnswer("METHOD_NOT_ALLOWED", "This is no proxy"));
    });
    this.server.on("connection", (socket: Socket) => {
      this.#arrivals++;
      if (!this.#connections.add(socket, clients.ofConnection(socket.remoteAddress))) socket.destroy();
      else socket.once("close", () => this.#connections.remove(socket));
    });
    this.server.on("clientError", (error: NodeJS.ErrnoException, socket: Socket) =>
      this.#refuse(error, socket),
    );
    const sweep = setInterval(() => this.#sweep(performance.now()), SWEEP_MS).unref();
    this.server.once("close", () => clearInterval(sweep));
  }

  /** Resolves when it listens. @throws StartError saying in one line why it cannot */
  listen(port: number, host: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const failed = (error: NodeJS.ErrnoException) => reject(cannotListen(error, port, host));
      this.server.once("error", failed);
      this.server.listen(port, host, () => {
        this.server.off("error", failed);
        resolve();
      });
    });
  }

  /**
   * Takes no more connections, closes those without a request, and resolves when the last answer is out. Node's own
   * `close()` waits for ever for a connection on which no request has come yet, as browsers open in advance.
   */
  async drain(): Promise<void> {
    if (!this.server.listening) return;
    this.#draining = true;
    await this.#catchUp();
    const closed = new Promise<void>((resolve) => this.server.close(() => resolve()));
    for (const { socket, response, waiting } of this.#connections) {
      // Those that wait are answered first.
      if (waiting.length > 0) continue;
      if (!response || (response.writableFinished && response.req.complete)) socket.destroy();
      // Answered, with the rest of its body on the way: an end before that would reset the connection.
      else if (response.writableFinished) endAfterBody(socket, response.req);
      else response.shouldKeepAlive = false;
    }
    await closed;
  }

  /**
   * Takes in what clients had sent before the drain. Node accepts one connection in a turn of the event loop, so a busy
   * server has some waiting in the kernel, requests and all, and closing would reset them. Bounded, for clients who
   * never cease.
   */
  async #catchUp(): Promise<void> {
    for (let turns = 0; turns < BACKLOG; turns++) {
      const before = this.#arrivals;
      // The first may end in the turn that runs already.
      await turn();
      await turn();
      if (this.#arrivals === before) return;
    }
  }

  /** One request of a connection at a time: a thousand sent in one go wait for each other, not for the event loop. */
  #enter(req: IncomingMessage, res: ServerResponse): void {
    this.#arrivals++;
    const connection = this.#connections.of(req.socket);
    if (!connection) return;
    const { waiting } = connection;
    const [, last] = waiting.at(-1) ?? [];
    if (!connection.busy) this.#handle(connection, req, res);
    else if (waiting.length < MAX_PIPELINED) waiting.push([req, res]);
    else if (last?.shouldKeepAlive) {
      // The answer to that one closes the connection, which tells the client to send the others again.
      last.shouldKeepAlive = false;
      req.socket.pause();
      parseNoMore(req.socket);
    }
  }

  #handle(connection: Connection, req: IncomingMessage, res: ServerResponse): void {
    connection.busy = true;
    connection.response = res;
    watch(req, res, this.#record);
    res.once("close", () => this.#next(connection));
    if (this.#draining && connection.waiting.length === 0) res.shouldKeepAlive = false;
    req.url = originForm(req.url ?? "");
    const fault = faultOf(req);
    if (fault) refuse(req, res, fault);
    else this.#handler(req, res);
  }

  #next(connection: Connection): void {
    const next = connection.socket.destroyed ? undefined : connection.waiting.shift();
    if (next) this.#handle(connection, ...next);
    else this.#connections.idle(connection);
  }

  /** Closes connections whose client has taken nothing of its answer for too long: it is held in our memory. */
  #sweep(now: number): void {
    for (const { socket, unread } of this.#connections) {
      const bytes = socket.writableLength;
      if (bytes === 0 || bytes !== unread.bytes) Object.assign(unread, { bytes, since: now });
      else if (now - unread.since >= this.#options.writeTimeoutMs) socket.destroy();
    }
  }

  #refuse(error: NodeJS.ErrnoException, socket: Socket): void {
    const response = this.#connections.of(socket)?.response;
    const answering = response?.headersSent && !response.writableFinished;
    // An early answer may not be out yet, and is all that is still to come.
    if (answering && !response.shouldKeepAlive && error.code !== "ECONNRESET") socket.destroySoon();
    else if (error.code === "ECONNRESET" || answering) socket.destroy();
    // The parser also complains of what comes after the bytes it complained of first.
    else if (socket.writable) this.#answerRaw(socket, this.#answerTo(error));
  }

  #answerRaw(socket: Socket, answer: Answer): void {
    sendRaw(socket, answer);
    this.#record(refusal(socket, answer));
  }

  /** To what never became a request. */
  #answerTo({ code = "" }: NodeJS.ErrnoException): Answer {
    if (code === "HPE_HEADER_OVERFLOW") {
      const { maxHeaderBytes } = this.#options;
      return rawAnswer("HEADERS_TOO_LARGE", `The headers may have at most ${maxHeaderBytes} bytes`);
    }
    return rawAnswer(...(COMPLAINTS[code] ?? (["BAD_REQUEST", "The request is not HTTP"] as const)));
  }
}

/** To Node's parser: what follows this head is none of its business, as after an upgrade. */
const NO_MORE_HTTP = 2;

/**
 * Has what is left of the bytes that are being parsed thrown away. A pause takes effect only after them: 64 KiB hold
 * 1,700 requests, of each of which Node makes objects, and an error with its stack when the connection ends. 50
 * connections held up everybody for seconds. By a property that Node does not document, but has always had; where it is
 * not, everything works, only slower.
 */
function parseNoMore(socket: Socket): void {
  const { parser } = socket as { parser?: { onIncoming?: () => number } };
  if (parser?.onIncoming) parser.onIncoming = () => NO_MORE_HTTP;
}

/** What stands in the way of listening, in the words of who sets HOST and PORT. */
const LISTEN_ERRORS: Readonly<Record<string, string>> = {
  EADDRINUSE: "another process has this port",
  EADDRNOTAVAIL: "this machine has no such address",
  ENOTFOUND: "this name has no address",
  EAI_AGAIN: "this name has no address",
  EACCES: "this user may not use this port",
};

function cannotListen({ code = "", message }: NodeJS.ErrnoException, port: number, host: string): StartError {
  return new StartError(
    `Cannot listen on ${host}:${port}: ${LISTEN_ERRORS[code] ?? message}${code ? ` (${code})` : ""}`,
  );
}

/** Answers a request that is not to be handled, and closes its connection: what follows may not be what it seems. */
function refuse(req: IncomingMessage, res: ServerResponse, error: ServingError): void {
  const requestId = requestIdOf(req.headers);
  res.setHeader(REQUEST_ID, requestId);
  res.shouldKeepAlive = false;
  send(req, res, errorAnswer(error, requestId));
}

function rawAnswer(code: ErrorCode, message: string): Answer {
  return errorAnswer(new ServingError(code, message), randomUUID());
}

/** What is known of bytes that never became a request. */
function refusal({ bytesRead, bytesWritten }: Socket, { status, body }: Answer): Access {
  const { code, requestId = "" } = (body as { error: WireError }).error;
  return {
    method: "",
    route: "none",
    path: "",
    status,
    seconds: 0,
    bytesIn: bytesRead,
    bytesOut: bytesWritten,
    requestId,
    code,
  };
}

function endAfterBody(socket: Socket, req: IncomingMessage): void {
  const timer = setTimeout(() => socket.destroy(), LINGER_MS);
  socket.once("close", () => clearTimeout(timer));
  req.once("close", () => socket.end());
}

/** Writes an answer where there is no response object, and closes once the client had a moment to read it. */
function sendRaw(socket: Duplex, { status, body }: Answer): void {
  const text = JSON.stringify(body);
  socket.end(
    [
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
      "content-type: application/json; charset=utf-8",
      `content-length: ${Buffer.byteLength(text)}`,
      "cache-control: no-store",
      "connection: close",
      "",
      text,
    ].join("\r\n"),
  );
  const timer = setTimeout(() => socket.destroy(), LINGER_MS);
  socket.once("close", () => clearTimeout(timer));
}
