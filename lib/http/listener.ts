import { randomUUID } from "node:crypto";
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from "node:http";
import type { Socket } from "node:net";
import { setImmediate as turn } from "node:timers/promises";
import { ServingError } from "../errors.ts";
import { type Answer, errorAnswer } from "./answer.ts";
import type { GatewayOptions } from "./options.ts";
import { LINGER_MS } from "./send.ts";

/** Node's default length of the kernel's queue of connections that wait to be accepted. */
const BACKLOG = 511;

export type ListenerOptions = Pick<
  GatewayOptions,
  "maxHeaderBytes" | "bodyTimeoutMs" | "keepAliveTimeoutMs" | "maxConnections"
>;

/**
 * A Node HTTP server that bounds what a client can hold (size of the head, time for head and body, idle time,
 * connections), answers what is not HTTP in the shape of our errors, and ends without breaking off an answer.
 */
export class Listener {
  readonly server: Server;
  /** Open connections, each with the response last begun on it. */
  readonly #connections = new Map<Socket, ServerResponse | undefined>();
  readonly #maxHeaderBytes: number;
  #draining = false;
  /** Connections and requests so far. */
  #arrivals = 0;

  constructor(options: ListenerOptions, handler: (req: IncomingMessage, res: ServerResponse) => void) {
    this.#maxHeaderBytes = options.maxHeaderBytes;
    this.server = createServer({
      maxHeaderSize: options.maxHeaderBytes,
      headersTimeout: options.bodyTimeoutMs,
      // Only for bodies that nobody reads; the others have their own, exact deadline.
      requestTimeout: 2 * options.bodyTimeoutMs,
      connectionsCheckingInterval: 1000,
      keepAliveTimeout: options.keepAliveTimeoutMs,
      noDelay: true,
    });
    this.server.maxConnections = options.maxConnections;
    const onRequest = (req: IncomingMessage, res: ServerResponse) => {
      this.#arrivals++;
      this.#connections.set(req.socket, res);
      if (this.#draining) res.shouldKeepAlive = false;
      handler(req, res);
    };
    this.server.on("request", onRequest);
    // The handler asks for the body with `writeContinue()`, so one that is refused is never sent.
    this.server.on("checkContinue", onRequest);
    this.server.on("connection", (socket: Socket) => {
      this.#arrivals++;
      this.#connections.set(socket, undefined);
      socket.once("close", () => this.#connections.delete(socket));
    });
    this.server.on("clientError", (error: NodeJS.ErrnoException, socket: Socket) =>
      this.#refuse(error, socket),
    );
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
    for (const [socket, response] of this.#connections) {
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

  #refuse(error: NodeJS.ErrnoException, socket: Socket): void {
    const response = this.#connections.get(socket);
    const answering = response?.headersSent && !response.writableFinished;
    if (error.code === "ECONNRESET" || answering) socket.destroy();
    // The parser also complains of what comes after the bytes it complained of first.
    else if (socket.writable) sendRaw(socket, this.#answerTo(error));
  }

  /** To what never became a request. */
  #answerTo({ code }: NodeJS.ErrnoException): Answer {
    if (code === "HPE_HEADER_OVERFLOW") {
      const error = new ServingError(
        "HEADERS_TOO_LARGE",
        `The headers may have at most ${this.#maxHeaderBytes} bytes`,
      );
      return errorAnswer(error, randomUUID());
    }
    return errorAnswer(
      code === "ERR_HTTP_REQUEST_TIMEOUT"
        ? new ServingError("SLOW_REQUEST", "The request did not arrive in time")
        : new ServingError("BAD_REQUEST", "The request is not HTTP"),
      randomUUID(),
    );
  }
}

function endAfterBody(socket: Socket, req: IncomingMessage): void {
  const timer = setTimeout(() => socket.destroy(), LINGER_MS);
  socket.once("close", () => clearTimeout(timer));
  req.once("close", () => socket.end());
}

/** Writes an answer where there is no response object, and closes once the client had a moment to read it. */
function sendRaw(socket: Socket, { status, body }: Answer): void {
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
