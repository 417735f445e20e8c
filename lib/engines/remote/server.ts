import { Pool } from "undici";
import type { HttpRequest, HttpResponse, RemoteProtocol } from "./protocol.ts";
import type { Target } from "./target.ts";

/** Longest time for a word on whether it is ready. */
const READY_TIMEOUT_MS = 5_000;
/** It is asked so often whether it still is … */
const WATCH_MS = 1_000;
/** … and is not when it said so, or nothing, so often: one lost answer is none. */
const MISSES = 2;
const CONNECT_TIMEOUT_MS = 5_000;
/** An idle connection is kept so long: servers close theirs after five seconds at the earliest. */
const KEEP_ALIVE_MS = 4_000;
const MAX_READY_BYTES = 1 << 20;

/** The connections to a model's server, shared by all its engines here, and whether it can be asked. */
export class RemoteServer {
  readonly #target: Target;
  readonly #protocol: RemoteProtocol;
  readonly #pool: Pool;
  readonly #watchers = new Set<(reason: string) => void>();
  #watch: NodeJS.Timeout | undefined;
  #misses = 0;

  constructor(target: Target, protocol: RemoteProtocol) {
    this.#target = target;
    this.#protocol = protocol;
    this.#pool = new Pool(target.origin, {
      // One more, for the question whether it is ready.
      connections: target.concurrency + 1,
      pipelining: 1,
      connectTimeout: CONNECT_TIMEOUT_MS,
      keepAliveTimeout: KEEP_ALIVE_MS,
      // The request's own signal bounds these.
      headersTimeout: 0,
      bodyTimeout: 0,
    });
  }

  /**
   * Sends a request and reads its answer.
   *
   * @param maxBytes of the answer
   * @throws ResponseTooLargeError; what undici or the signal throws
   */
  async request(
    { method, path, headers = {}, body }: HttpRequest,
    signal: AbortSignal,
    maxBytes: number,
  ): Promise<HttpResponse> {
    const { prefix, authorization } = this.#target;
    const response = await this.#pool.request({
      method,
      path: `${prefix}${path}`,
      headers: { ...headers, ...(authorization ? { authorization } : {}) },
      body: body ?? null,
      signal,
    });
    const chunks: Buffer[] = [];
    let size = 0;
    // Leaving the loop early ends the connection.
    for await (const chunk of response.body as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > maxBytes) throw new ResponseTooLargeError(maxBytes);
      chunks.push(chunk);
    }
    return { status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks) };
  }

  /** @throws Error that says why it cannot be asked */
  async assertReady(signal?: AbortSignal): Promise<void> {
    const timeout = AbortSignal.timeout(READY_TIMEOUT_MS);
    const either = signal ? AbortSignal.any([signal, timeout]) : timeout;
    const response = await this.request(this.#protocol.ready(), either, MAX_READY_BYTES);
    if (!this.#protocol.isReady(response))
      throw new Error(`it is not ready: ${this.#protocol.fault(response)}`);
  }

  /**
   * Looks every second whether it can still be asked.
   *
   * @param onLost told once, when it cannot
   * @returns ends it
   */
  watch(onLost: (reason: string) => void): () => void {
    this.#watchers.add(onLost);
    this.#watch ??= setInterval(() => void this.#look(), WATCH_MS).unref();
    return () => {
      this.#watchers.delete(onLost);
      if (this.#watchers.size > 0) return;
      clearInterval(this.#watch);
      this.#watch = undefined;
      this.#misses = 0;
    };
  }

  async close(): Promise<void> {
    clearInterval(this.#watch);
    await this.#pool.destroy();
  }

  async #look(): Promise<void> {
    try {
      await this.assertReady();
      this.#misses = 0;
    } catch (error) {
      if (++this.#misses < MISSES) return;
      this.#misses = 0;
      for (const onLost of [...this.#watchers]) onLost((error as Error).message);
    }
  }
}

export class ResponseTooLargeError extends Error {
  constructor(maxBytes: number) {
    super(`its answer has more than ${maxBytes} bytes`);
  }
}
