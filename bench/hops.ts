import { type ChildProcess, fork } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { type Channel, connect } from "amqplib";
import { median } from "../testkit/percentile.ts";

/** Bytes of an answer. */
const ANSWER_BYTES = 700;
/** As many requests are on their way at once. */
const OPEN = 32;

/** One process's end: a queue of its own for answers, and calls that resolve with the answer. */
interface Endpoint {
  readonly channel: Channel;
  call(queue: string, body: Buffer): Promise<void>;
  close(): Promise<void>;
}

async function endpoint(url: string): Promise<Endpoint> {
  const connection = await connect(url, { noDelay: true });
  const channel = await connection.createChannel();
  await channel.prefetch(2 * OPEN);
  const { queue: answers } = await channel.assertQueue("", { exclusive: true });
  const open = new Map<string, () => void>();
  await channel.consume(answers, (message) => {
    if (!message) return;
    open.get(message.properties.messageId)?.();
    open.delete(message.properties.messageId);
    channel.ack(message);
  });
  return {
    channel,
    call: (queue, body) =>
      new Promise((resolve) => {
        const messageId = randomUUID();
        open.set(messageId, resolve);
        channel.sendToQueue(queue, body, { messageId, replyTo: answers, expiration: 30_000 });
      }),
    close: () => connection.close(),
  };
}

/** Answers what comes, after it asked the next process if there is one. */
async function serve(url: string, queue: string, next: string | undefined, bytes: number): Promise<void> {
  const { channel, call } = await endpoint(url);
  await channel.assertQueue(queue, { durable: true, autoDelete: true, messageTtl: 60_000 });
  await channel.consume(queue, async (message) => {
    if (!message) return;
    if (next) await call(next, Buffer.allocUnsafe(bytes));
    const { replyTo, messageId } = message.properties;
    channel.sendToQueue(replyTo, Buffer.allocUnsafe(ANSWER_BYTES), { messageId });
    channel.ack(message);
  });
}

/**
 * The two hops by themselves: messages of the same sizes through as many processes, over bare amqplib. What is left of
 * the cores after this, no server that is built on it can exceed.
 */
export class HopsMeter {
  readonly #children: readonly ChildProcess[];
  readonly #call: (body: Buffer) => Promise<void>;
  readonly #close: () => Promise<void>;
  readonly #imageBytes: number;

  private constructor(
    children: readonly ChildProcess[],
    { call, close }: Omit<Endpoint, "channel">,
    first: string,
    imageBytes: number,
  ) {
    this.#children = children;
    this.#call = (body) => call(first, body);
    this.#close = close;
    this.#imageBytes = imageBytes;
  }

  static async start(url: string, imageBytes: number, pixelBytes: number): Promise<HopsMeter> {
    const [first, second] = [`bench-hop-1-${process.pid}`, `bench-hop-2-${process.pid}`];
    const children = [];
    for (const args of [
      [url, second, "", "0"],
      [url, first, second, String(pixelBytes)],
    ]) {
      const child = fork(import.meta.filename, args);
      const [message] = await Promise.race([once(child, "message"), once(child, "exit")]);
      if (message !== "ready") throw new Error(`A hop's process exited with ${String(message)}`);
      children.push(child);
    }
    return new HopsMeter(children, await endpoint(url), first, imageBytes);
  }

  /** @returns requests a second */
  async measure(seconds: number): Promise<number> {
    let done = 0;
    const began = performance.now();
    const end = began + seconds * 1e3;
    const caller = async () => {
      for (; performance.now() < end; done++) await this.#call(Buffer.allocUnsafe(this.#imageBytes));
    };
    await Promise.all(Array.from({ length: OPEN }, caller));
    return (done * 1e3) / (performance.now() - began);
  }

  /** @returns median milliseconds of one request with nothing else on its way */
  async measureAlone(seconds: number): Promise<number> {
    const times: number[] = [];
    const end = performance.now() + seconds * 1e3;
    for (let began = performance.now(); began < end; began = performance.now()) {
      await this.#call(Buffer.allocUnsafe(this.#imageBytes));
      times.push(performance.now() - began);
    }
    return median(times);
  }

  async stop(): Promise<void> {
    await this.#close();
    for (const child of this.#children) child.kill();
  }
}

if (import.meta.main) {
  const [url = "", queue = "", next = "", bytes = "0"] = process.argv.slice(2);
  await serve(url, queue, next || undefined, Number(bytes));
  // However the bench ends.
  process.once("disconnect", () => process.exit());
  process.send?.("ready");
}
