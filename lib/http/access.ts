import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";

/** One request and what became of it. */
export interface Access {
  /** Empty for what never was a request. */
  readonly method: string;
  /** The address as the API spells it (`/api/models/:model`), `static` for the page's files, `none` if there is no such. */
  readonly route: string;
  /** As the client sent it, without its query; cut to 200 characters. */
  readonly path: string;
  /** 499 if the client went away first. */
  readonly status: number;
  /** From the request's head to its answer. */
  readonly seconds: number;
  /** Read from and written to the connection, heads included. What is read of a body after its answer does not count. */
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly requestId: string;
  /** The models asked for, `*` for all; absent where there is no question. */
  readonly models?: readonly string[];
  /** Of the error's table; absent where all went well. */
  readonly code?: string;
}

export type RecordAccess = (access: Access) => void;

/** What those who answer a request know of it, and its messages do not. */
export type Note = Partial<Pick<Access, "route" | "models" | "code">>;

const MAX_PATH = 200;
/** The status nginx made common for this. */
const CLIENT_GONE = 499;

interface Watched {
  note: Note;
  settle(): void;
}

const watched = new WeakMap<ServerResponse, Watched>();
/** Bytes of each connection that earlier requests account for. */
const counted = new WeakMap<Socket, { read: number; written: number }>();

/** Calls `record` once, when the request is answered or its client is gone. */
export function watch(req: IncomingMessage, res: ServerResponse, record: RecordAccess): void {
  const began = performance.now();
  // The response lets go of its socket at the end.
  const { socket, method = "", url = "" } = req;
  const settle = () => {
    if (!watched.delete(res)) return;
    const { note } = entry;
    const status = res.headersSent ? res.statusCode : CLIENT_GONE;
    const before = counted.get(socket) ?? { read: 0, written: 0 };
    const now = { read: socket.bytesRead, written: socket.bytesWritten };
    counted.set(socket, now);
    record({
      method,
      route: status < 400 ? "static" : "none",
      path: (url.split("?", 1)[0] ?? "").slice(0, MAX_PATH),
      status,
      seconds: (performance.now() - began) / 1e3,
      bytesIn: now.read - before.read,
      bytesOut: now.written - before.written,
      requestId: String(res.getHeader("x-request-id") ?? ""),
      ...note,
    });
  };
  const entry: Watched = { note: {}, settle };
  watched.set(res, entry);
  res.once("close", settle);
}

/** Adds to what is recorded of a request; nothing if it is not watched. */
export function note(res: ServerResponse, more: Note): void {
  const entry = watched.get(res);
  if (entry) Object.assign(entry.note, more);
}

/** The answer is on its way: the request is recorded now. A connection may linger for the rest of a refused body. */
export function answered(res: ServerResponse): void {
  watched.get(res)?.settle();
}
