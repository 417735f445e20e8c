import { Decoder, Encoder } from "cbor-x";
import { Redis } from "ioredis";
import { LRUCache } from "lru-cache";
import type { Logger } from "moleculer";
import type { Scope } from "../request/scope.ts";
import { Flights } from "./flights.ts";

/** What one lookup came to; `bypass`: the client wanted none. */
export type CacheResult = "hit" | "miss" | "shared" | "error" | "bypass";

/** A network's output, as its task interprets it: plain data and typed arrays. */
export type Output = unknown;

/** Where outputs are kept. All may fail; the cache then goes on without. */
export interface OutputStore {
  /** undefined: there is none. */
  get(key: string): Promise<Output | undefined>;
  set(key: string, output: Output): Promise<void>;
  close(): Promise<void>;
}

/** Outputs in this process: at most `maxEntries`, the least recently used leave first; each for `ttlMs`. */
export class MemoryStore implements OutputStore {
  readonly #outputs: LRUCache<string, { readonly output: Output }>;

  constructor({ ttlMs, maxEntries }: { readonly ttlMs: number; readonly maxEntries: number }) {
    this.#outputs = new LRUCache({ max: maxEntries, ttl: ttlMs });
  }

  async get(key: string): Promise<Output | undefined> {
    return this.#outputs.get(key)?.output;
  }

  async set(key: string, output: Output): Promise<void> {
    this.#outputs.set(key, { output });
  }

  async close(): Promise<void> {}
}

/** A Redis that has not answered by then is as good as a miss. */
const REDIS_TIMEOUT_MS = 50;
/** After a failure Redis is left alone this long, so that a stuck one costs one time-out and not one a request. */
const REDIS_REST_MS = 1_000;

/** CBOR as on the wire: typed arrays stay what they are, and a thousand probabilities take 4 KB. */
const encoder = new Encoder({ tagUint8Array: true });
const decoder = new Decoder();

/**
 * Outputs in a Redis that all dispatchers share, each for `ttlMs`; how many is Redis's own `maxmemory`. Every command
 * fails within 50 ms; a Redis that is down is reconnected to in the background.
 */
export class RedisStore implements OutputStore {
  readonly #redis: Redis;
  readonly #prefix: string;
  readonly #ttlMs: number;
  #restUntil = 0;

  constructor({
    url,
    namespace,
    ttlMs,
    onState,
  }: {
    readonly url: string;
    readonly namespace: string;
    readonly ttlMs: number;
    /** Told when the connection comes and goes; `error` is undefined when it came. */
    readonly onState?: (error?: Error) => void;
  }) {
    this.#prefix = `${namespace}:output:`;
    this.#ttlMs = ttlMs;
    this.#redis = new Redis(url, {
      enableOfflineQueue: false,
      commandTimeout: REDIS_TIMEOUT_MS,
      connectTimeout: 2_000,
      maxRetriesPerRequest: 0,
      retryStrategy: (times) => Math.min(1_000, 50 * times),
    });
    let up: boolean | undefined;
    const change = (now: boolean, error?: Error) => {
      if (now !== up) onState?.(error);
      up = now;
    };
    this.#redis.on("ready", () => change(true));
    this.#redis.on("error", (error) => change(false, error));
  }

  async get(key: string): Promise<Output | undefined> {
    const bytes = await this.#guard(() => this.#redis.getBuffer(this.#prefix + key));
    return bytes ? (decoder.decode(bytes) as Output) : undefined;
  }

  async set(key: string, output: Output): Promise<void> {
    const bytes = encoder.encode(output);
    await this.#guard(() => this.#redis.set(this.#prefix + key, bytes, "PX", this.#ttlMs));
  }

  async close(): Promise<void> {
    this.#redis.disconnect();
  }

  async #guard<T>(command: () => Promise<T>): Promise<T> {
    if (performance.now() < this.#restUntil) throw new Error("Redis rests after a failure");
    try {
      return await command();
    } catch (error) {
      this.#restUntil = performance.now() + REDIS_REST_MS;
      throw error;
    }
  }
}

/** Redis where a `url` is given, else memory. */
export function createStore(options: {
  readonly url: string;
  readonly namespace: string;
  readonly ttlMs: number;
  readonly maxEntries: number;
  readonly logger: Logger;
}): OutputStore {
  if (options.url === "") return new MemoryStore(options);
  return new RedisStore({
    ...options,
    onState: (error) =>
      error
        ? options.logger.warn("Redis is down; nothing is cached", { reason: error.message })
        : options.logger.info("Redis is connected"),
  });
}

/** An output, and whether it was computed for this caller. `report` is what `compute` gave besides. */
export interface Found<Report> {
  readonly output: Output;
  /** Absent: it was kept, or computed for another caller. */
  readonly report?: Report;
}

/**
 * The cache of outputs: looks one up by key, computes it where there is none, and lets callers that want the same at
 * the same time share one computation. A store that fails costs a miss, never a request. Errors are not kept.
 */
export class OutputCache<Report> {
  readonly #store: OutputStore;
  readonly #onResult: (result: CacheResult) => void;
  readonly #flights = new Flights<Found<Report>>();

  constructor(store: OutputStore, onResult: (result: CacheResult) => void = () => {}) {
    this.#store = store;
    this.#onResult = onResult;
  }

  /**
   * @param compute see {@link Flights.run}
   * @throws as {@link Flights.run}
   */
  async through(
    key: string,
    scope: Scope,
    compute: (scope: Scope) => Promise<Found<Report>>,
  ): Promise<Found<Report>> {
    const { value, shared } = await this.#flights.run(key, scope, (own) => this.#lookUp(key, own, compute));
    if (!shared) return value;
    this.#onResult("shared");
    return { output: value.output };
  }

  /** Counts a request that wants nothing from here. */
  bypass(): void {
    this.#onResult("bypass");
  }

  close(): Promise<void> {
    return this.#store.close();
  }

  async #lookUp(
    key: string,
    scope: Scope,
    compute: (scope: Scope) => Promise<Found<Report>>,
  ): Promise<Found<Report>> {
    try {
      const output = await this.#store.get(key);
      this.#onResult(output === undefined ? "miss" : "hit");
      if (output !== undefined) return { output };
    } catch {
      this.#onResult("error");
      return compute(scope);
    }
    const found = await compute(scope);
    // Not awaited: the answer need not wait for its own storing.
    this.#store.set(key, found.output).catch(() => this.#onResult("error"));
    return found;
  }
}
