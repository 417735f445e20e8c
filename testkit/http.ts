import { once } from "node:events";
import { Agent, type IncomingHttpHeaders, type IncomingMessage, request } from "node:http";
import { connect, type Socket } from "node:net";
import { text } from "node:stream/consumers";

export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** The body as JSON. */
  // biome-ignore lint/suspicious/noExplicitAny: a test looks into it with matchers
  readonly json: () => any;
}

export interface Sending {
  /** @default "POST" with a body, else "GET" */
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | string;
  readonly signal?: AbortSignal;
  readonly agent?: Agent;
}

export interface Part {
  readonly name?: string;
  readonly file?: string;
  readonly type?: string;
  readonly bytes: Uint8Array | string;
}

/** One request on a connection of its own. Unlike `fetch` it takes an answer that comes before the body is out. */
export async function http(url: string, sending: Sending = {}): Promise<Reply> {
  const { body, headers, signal, agent = new Agent() } = sending;
  const outgoing = request(url, {
    method: sending.method ?? (body === undefined ? "GET" : "POST"),
    headers: { ...headers, ...(body === undefined ? {} : { "content-length": Buffer.byteLength(body) }) },
    agent,
    ...(signal ? { signal } : {}),
  });
  outgoing.end(body);
  const [response] = (await once(outgoing, "response")) as [IncomingMessage];
  outgoing.on("error", () => {});
  const received = await text(response);
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    text: received,
    json: () => JSON.parse(received),
  };
}

/** Body and headers of a form; parts without a name are images. */
export function form(parts: readonly Part[], boundary = "a-boundary") {
  const body = Buffer.concat([
    ...parts.flatMap(({ name = "image", file = "photo.jpg", type = "image/jpeg", bytes }) => [
      Buffer.from(
        `--${boundary}\r\ncontent-disposition: form-data; name="${name}"${file ? `; filename="${file}"` : ""}\r\n` +
          `content-type: ${type}\r\n\r\n`,
      ),
      Buffer.from(bytes),
      Buffer.from("\r\n"),
    ]),
    Buffer.from(`--${boundary}--\r\n`),
  ]);
  return { body, headers: { "content-type": `multipart/form-data; boundary=${boundary}` } };
}

/** A TCP connection to the server of `url`. */
export async function dial(url: string): Promise<Socket> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  socket.on("error", () => {});
  await once(socket, "connect");
  return socket;
}

/** All that comes back on a connection until it is closed, also by a reset: then what came before it. */
export async function readAll(socket: Socket): Promise<string> {
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk)).resume();
  // Not `once` of node:events: a reset is an end like any other.
  await new Promise((closed) => socket.once("close", closed));
  return Buffer.concat(chunks).toString();
}
