import { Agent } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import { http } from "../../testkit/http.ts";
import { percentile } from "../../testkit/percentile.ts";
import { photo } from "./images.ts";

/** One request and what became of it. Every request that was sent becomes one. */
export interface Sample {
  /** On the clock of `performance.now()`. */
  readonly sentAt: number;
  readonly ms: number;
  /** 0: no answer. */
  readonly status: number;
  /** Why there is no complete answer: an error code of ours, or of Node's client. */
  readonly error: string | undefined;
}

/** The fields of an answer that say whether it is one. */
interface Body {
  readonly error?: { readonly code: string };
  readonly results?: Readonly<Record<string, { readonly label?: string; readonly error?: { code: string } }>>;
}

/** How long a client waits beyond its deadline: an answer may be late, but not missing. */
const PATIENCE_MS = 5000;

/** Images that come again and again where the cache is what is tested. */
const REPEATED = 10;

/**
 * Steady HTTP load: requests go out at their times whatever becomes of those before them (an open loop: a stall delays
 * no request, so none is missing from the figures), each to all models, over connections that are kept.
 */
export class Load {
  readonly samples: Sample[] = [];
  /** Address of the gateway; a load balancer would change it. */
  target: string;
  deadlineMs = 15_000;
  models: readonly string[] = ["resnet-cat", "resnet-dog"];
  /** Share of the requests that are a repeated image and may come from the cache. The others bypass it. */
  cached = 0;
  readonly #agent = new Agent({ keepAlive: true });
  readonly #open = new Set<Promise<unknown>>();
  #running: Promise<void> | undefined;
  #stopped = false;
  #count = 0;
  #rate: number;
  /** When the next request goes out. */
  #due = 0;

  constructor(target: string, rate: number) {
    this.target = target;
    this.#rate = rate;
  }

  /** Requests a second. */
  get rate(): number {
    return this.#rate;
  }

  set rate(rate: number) {
    this.#rate = rate;
    this.#due = performance.now();
  }

  start(): void {
    this.#stopped = false;
    this.#due = performance.now();
    this.#running = this.#pace();
  }

  /** Sends no more; resolves when all that was sent has its answer, or has waited too long for one. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
    await Promise.all(this.#open);
  }

  /** Sends some at once and resolves with the first answer: by then the others have arrived, too, and are worked on. */
  async burst(count = 16): Promise<void> {
    await Promise.race(Array.from({ length: count }, () => this.send()));
  }

  /**
   * As many as are answered when so many clients wait for theirs before they send again.
   * @returns answers a second
   */
  async closedLoop(clients: number, seconds: number): Promise<number> {
    const end = performance.now() + seconds * 1000;
    let answered = 0;
    const client = async () => {
      while (performance.now() < end) {
        const { error } = await this.send();
        if (error === undefined && performance.now() <= end) answered++;
      }
    };
    await Promise.all(Array.from({ length: clients }, client));
    return answered / seconds;
  }

  /** Sends one request. */
  async send(): Promise<Sample> {
    const number = ++this.#count;
    const repeats = Math.random() < this.cached;
    const sent = photo(repeats ? number % REPEATED : REPEATED + number)
      .then((image) => this.#post(image, this.models, repeats))
      .finally(() => this.#open.delete(sent));
    this.#open.add(sent);
    const sample = await sent;
    this.samples.push(sample);
    return sample;
  }

  /** Sends one request that is not among the samples. */
  probe(image: Buffer, models: readonly string[]): Promise<Sample> {
    return this.#post(image, models, false);
  }

  async #pace(): Promise<void> {
    while (!this.#stopped) {
      void this.send();
      this.#due += 1000 / this.#rate;
      await delay(Math.max(0, this.#due - performance.now()));
    }
  }

  async #post(image: Buffer, models: readonly string[], mayCache: boolean): Promise<Sample> {
    const sentAt = performance.now();
    const ended = (status: number, error: string | undefined): Sample => ({
      sentAt,
      ms: performance.now() - sentAt,
      status,
      error,
    });
    try {
      const reply = await http(`${this.target}/api/classify?models=${models.join(",")}`, {
        body: image,
        headers: {
          "content-type": "image/jpeg",
          "x-request-timeout-ms": String(this.deadlineMs),
          ...(mayCache ? {} : { "cache-control": "no-store" }),
        },
        agent: this.#agent,
        signal: AbortSignal.timeout(this.deadlineMs + PATIENCE_MS),
      });
      return ended(reply.status, whyIncomplete(reply.json() as Body, models));
    } catch (error) {
      return ended(0, (error as { code?: string }).code ?? (error as Error).name);
    }
  }
}

function whyIncomplete({ error, results = {} }: Body, models: readonly string[]): string | undefined {
  if (error) return error.code;
  for (const model of models) {
    const answer = results[model];
    if (answer?.label === undefined) return answer?.error?.code ?? `no answer of ${model}`;
  }
  return undefined;
}

/** Figures of some requests. */
export interface Summary {
  readonly requests: number;
  readonly failed: number;
  /** Milliseconds of the slowest; 0 without requests. */
  readonly slowestMs: number;
  /** How often each error was met. */
  readonly errors: Readonly<Record<string, number>>;
}

export function summarise(samples: readonly Sample[]): Summary {
  const errors: Record<string, number> = {};
  for (const { status, error } of samples) {
    if (error !== undefined) errors[`${status} ${error}`] = (errors[`${status} ${error}`] ?? 0) + 1;
  }
  return {
    requests: samples.length,
    failed: samples.filter(({ error }) => error !== undefined).length,
    slowestMs: samples.reduce((most, { ms }) => Math.max(most, ms), 0),
    errors,
  };
}

/** Whether it was refused for want of room, rather than lost. */
export function isRefusal({ status }: Sample): boolean {
  return status === 503 || status === 429;
}

/** Milliseconds that this share of the samples stays below; 0 without samples. */
export function latency(samples: readonly Sample[], share: number): number {
  return percentile(
    samples.map(({ ms }) => ms),
    share,
  );
}
