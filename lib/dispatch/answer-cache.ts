import { Redis } from "ioredis";
import { LRUCache } from "lru-cache";
import type { Logger } from "moleculer";
import type { ModelAnswer } from "../types.ts";

/** What one lookup came to. */
export type CacheResult = "hit" | "miss" | "shared" | "error";

/** Where answers are kept. Both may fail; the cache then goes on without. */
export interface AnswerStore {
  get(key: string): Promise<ModelAnswer | undefined>;
  set(key: string, answer: ModelAnswer): Promise<void>;
  close(): Promise<void>;
}

/** Answers in this process: at most `maxEntries`, the least recently used leave first; each for `ttlMs`. */
export class MemoryStore implements AnswerStore {
  readonly #answers: LRUCache<string, ModelAnswer>;

  constructor({ ttlMs, maxEntries }: { readonly ttlMs: number; readonly maxEntries: number }) {
    this.#answers = new LRUCache({ max: maxEntries, ttl: ttlMs });
  }

  async get(key: string): Promise<ModelAnswer | undefined> {
    return this.#answers.get(key);
  }

  async set(key: string, answer: ModelAnswer): Promise<void> {
    this.#answers.set(key, answer);
  }

  async close(): Promise<void> {}
}

/** A Redis that has not answered by then is as good as a miss. */
const REDIS_TIMEOUT_MS = 50;
/** After a failure Redis is left alone this long, so that a stuck one costs one time-out and not one a request. */
const REDIS_REST_MS = 1_000;

/**
 * Answers in a Redis that all dispatchers share, each for `ttlMs`; how many is Redis's own `maxmemory`. Every command
 * fails within 50 ms; a Redis that is down is reconnected to in the background.
 */
export class RedisStore implements AnswerStore {
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
    this.#prefix = `${namespace}:answer:`;
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

  async get(key: string): Promise<ModelAnswer | undefined> {
    const text = await this.#guard(() => this.#redis.get(this.#prefix + key));
    return text ? (JSON.parse(text) as ModelAnswer) : undefined;
  }

  async set(key: string, answer: ModelAnswer): Promise<void> {
    await this.#guard(() => this.#redis.set(this.#prefix + key, JSON.stringify(answer), "PX", this.#ttlMs));
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
}): AnswerStore {
  if (options.url === "") return new MemoryStore(options);
  return new RedisStore({
    ...options,
    onState: (error) =>
      error
        ? options.logger.warn("Redis is down; answers are not cached", { reason: error.message })
        : options.logger.info("Redis is connected"),
  });
}

/**
 * The response cache: looks an answer up by key, computes it where there is none, and lets callers that ask the same
 * at the same time share one computation. A store that fails costs a miss, never a request. Errors are not kept.
 */
export class AnswerCache {
  readonly #store: AnswerStore;
  readonly #onResult: (result: CacheResult) => void;
  readonly #flights = new Map<string, Promise<ModelAnswer>>();

  constructor(store: AnswerStore, onResult: (result: CacheResult) => void = () => {}) {
    this.#store = store;
    this.#onResult = onResult;
  }

  async through(key: string, compute: () => Promise<ModelAnswer>): Promise<ModelAnswer> {
    const flight = this.#flights.get(key);
    if (flight) {
      const answer = await flight.catch(() => undefined);
      if (answer && !("error" in answer)) {
        this.#onResult("shared");
        return { ...answer, cached: true };
      }
      // The one in front failed, perhaps only because its own client hung up: ask for ourselves.
      return compute();
    }
    const fresh = this.#lookUp(key, compute);
    this.#flights.set(key, fresh);
    try {
      return await fresh;
    } finally {
      this.#flights.delete(key);
    }
  }

  close(): Promise<void> {
    return this.#store.close();
  }

  async #lookUp(key: string, compute: () => Promise<ModelAnswer>): Promise<ModelAnswer> {
    try {
      const stored = await this.#store.get(key);
      this.#onResult(stored ? "hit" : "miss");
      if (stored) return { ...stored, cached: true };
    } catch {
      this.#onResult("error");
      return compute();
    }
    const answer = await compute();
    // Not awaited: the answer need not wait for its own storing.
    if (!("error" in answer)) this.#store.set(key, answer).catch(() => this.#onResult("error"));
    return answer;
  }
}
