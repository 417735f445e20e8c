import { once } from "node:events";
import sharp from "sharp";
import { ATTACKS } from "./hostile-images.ts";
import { dial, http, readAll } from "./http.ts";

/** Something that harms, and that some clients do again and again. */
export interface Assault {
  /** What it is, as the table in SECURITY.md says it. */
  readonly name: string;
  /** Bytes that are sent each time. */
  readonly bytes: number;
  readonly clients: number;
  /** Does it once; what came of it, in a word. */
  readonly act: (url: string) => Promise<string>;
}

/** Status, or the error's code. */
export async function classify(url: string, body: Buffer): Promise<string> {
  const reply = await http(`${url}/api/classify?models=resnet-cat`, {
    headers: { "content-type": "image/jpeg", "cache-control": "no-store" },
    body,
    signal: AbortSignal.timeout(60_000),
  });
  return reply.status === 200 ? "200" : (reply.json().error?.code ?? String(reply.status));
}

const CLIENTS = 2;
const HEAD = "POST /api/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\n";

/** The hostile images, each sent by two clients unless it says otherwise. */
async function images(wanted: (name: string) => boolean): Promise<Assault[]> {
  return Promise.all(
    ATTACKS.filter(({ name }) => wanted(name)).map(async ({ name, make, clients = CLIENTS }) => {
      const image = await make();
      return { name, bytes: image.length, clients, act: (url: string) => classify(url, image) };
    }),
  );
}

/** What clients do to the door itself, and the largest good photos there are. */
async function clients(): Promise<Assault[]> {
  const uploads = [await noise(1790), await photoOf(6324)];
  return [
    raw("1,000 requests for /metrics in one go", 50, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000)),
    raw(
      "a megabyte in chunks of one byte",
      4,
      `${HEAD}transfer-encoding: chunked\r\n\r\n${"1\r\nx\r\n".repeat(2 ** 20)}`,
    ),
    { name: "asking for a tunnel, then a reset", bytes: TUNNEL.length, clients: 50, act: tunnel },
    {
      name: "10 MB photos beside photos of 40 megapixels",
      bytes: Math.max(...uploads.map(({ length }) => length)),
      clients: 4,
      act: (url) => classify(url, pick(uploads)),
    },
  ];
}

export async function assaults(wanted: (name: string) => boolean): Promise<Assault[]> {
  return [...(await images(wanted)), ...(await clients()).filter(({ name }) => wanted(name))];
}

/** Bytes on a connection of their own; what came back first. */
function raw(name: string, clients: number, text: string): Assault {
  const act = async (url: string) => {
    const socket = await dial(url);
    const answer = readAll(socket);
    socket.write(text);
    return statusIn(await answer);
  };
  return { name, bytes: Buffer.byteLength(text), clients, act };
}

const TUNNEL = "CONNECT example.com:443 HTTP/1.1\r\nhost: example.com\r\n\r\n";

async function tunnel(url: string): Promise<string> {
  const socket = await dial(url);
  socket.write(TUNNEL);
  const answer = await Promise.race([once(socket, "data"), once(socket, "close")]);
  socket.resetAndDestroy();
  return statusIn(String(answer[0]));
}

function statusIn(answer: string): string {
  return /^HTTP\/1\.1 (\d+)/.exec(answer)?.[1] ?? "closed";
}

/** A PNG that nothing makes smaller. */
function noise(side: number): Promise<Buffer> {
  const create = { width: side, height: side, channels: 3 as const, background: "gray" };
  return sharp({ create: { ...create, noise: { type: "gaussian", mean: 128, sigma: 60 } } })
    .png()
    .toBuffer();
}

/** A JPEG as cameras make it, of soft shapes. */
async function photoOf(side: number): Promise<Buffer> {
  return sharp(await noise(64))
    .resize(side, side, { kernel: "cubic" })
    .jpeg({ quality: 85 })
    .toBuffer();
}

function pick<T>(list: readonly T[]): T {
  return list[Math.floor(Math.random() * list.length)] as T;
}
