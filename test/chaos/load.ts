import { Agent } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import { http } from "../../testkit/http.ts";
import { percentile } from "../../testkit/percentile.ts";
import { PHOTOS, photo } from "./images.ts";

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

interface Answered extends Sample {
  readonly answers: Answers;
}

/** The fields of an answer that say whether it is one. */
interface Body {
  readonly error?: { readonly code: string };
  readonly results?: Readonly<
    Record<string, { readonly probability?: number; readonly error?: { readonly code: string } }>
  >;
}

/** How long a client waits beyond its deadline: an answer may be late, but not missing. */
const PATIENCE_MS = 5000;

/** What each model says of a photo: the probability of a yes. */
type Answers = Readonly<Record<string, number>>;

/** The error of a sample whose answer is that to another photo. */
export const WRONG = "WRONG_ANSWER";

/** How far the answers to one photo may be apart: batches of other sizes are rounded otherwise. */
const SAME = 0.02;

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
  /** Further gateways: clients take turns, and try the next when a connection fails. */
  others: readonly string[] = [];
  failsOver = true;
  /** The right answers, by number of the photo. */
  #right: readonly Answers[] = [];
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
    const which = repeats ? number % REPEATED : REPEATED + number;
    const sent = photo(which)
      .then((image) => this.#post(image, this.models, repeats))
      .then((sample) => this.#judge(sample, which))
      .finally(() => this.#open.delete(sent));
    this.#open.add(sent);
    const sample = await sent;
    this.samples.push(sample);
    return sample;
  }

  /**
   * Asks about every photo once, when nothing is wrong yet; every later answer is compared with these.
   *
   * @throws if two photos have the same answers: swapped ones would not be seen
   */
  async learn(): Promise<void> {
    const right: Answers[] = [];
    for (let number = 0; number < PHOTOS; number++) {
      const { error, answers } = await this.#post(await photo(number), this.models, false);
      if (error !== undefined) throw new Error(`No answer to photo ${number} before the event: ${error}`);
      const twin = right.findIndex((other) => isSame(answers, other));
      if (twin >= 0) throw new Error(`Photos ${twin} and ${number} have the same answers`);
      right.push(answers);
    }
    this.#right = right;
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

  #judge({ answers, ...sample }: Answered, number: number): Sample {
    const right = this.#right[number % PHOTOS];
    const isWrong = sample.error === undefined && right !== undefined && !isSame(answers, right);
    return isWrong ? { ...sample, error: WRONG } : sample;
  }

  async #post(image: Buffer, models: readonly string[], mayCache: boolean): Promise<Answered> {
    const sentAt = performance.now();
    const targets = [this.target, ...this.others];
    const first = this.#count % targets.length;
    for (let tries = 1; ; tries++) {
      const target = targets[(first + tries) % targets.length] ?? this.target;
      const answer = await this.#ask(target, image, models, mayCache, sentAt);
      if (!this.failsOver || tries >= targets.length || !isDisconnect(answer)) return answer;
    }
  }

  async #ask(
    target: string,
    image: Buffer,
    models: readonly string[],
    mayCache: boolean,
    sentAt: number,
  ): Promise<Answered> {
    const ended = (status: number, error: string | undefined, answers: Answers = {}): Answered => ({
      sentAt,
      ms: performance.now() - sentAt,
      status,
      error,
      answers,
    });
    try {
      const reply = await http(`${target}/api/classify?models=${models.join(",")}`, {
        body: image,
        headers: {
          "content-type": "image/jpeg",
          "x-request-timeout-ms": String(this.deadlineMs),
          ...(mayCache ? {} : { "cache-control": "no-store" }),
        },
        agent: this.#agent,
        signal: AbortSignal.timeout(this.deadlineMs + PATIENCE_MS),
      });
      const body = reply.json() as Body;
      return ended(reply.status, whyIncomplete(body, models), answersIn(body));
    } catch (error) {
      return ended(0, (error as { code?: string }).code ?? (error as Error).name);
    }
  }
}

function whyIncomplete({ error, results = {} }: Body, models: readonly string[]): string | undefined {
  if (error) return error.code;
  for (const model of models) {
    const answer = results[model];
    if (answer?.probability === undefined) return answer?.error?.code ?? `no answer of ${model}`;
  }
  return undefined;
}

function answersIn({ results = {} }: Body): Answers {
  const answers: Record<string, number> = {};
  for (const [model, { probability }] of Object.entries(results)) {
    if (probability !== undefined) answers[model] = probability;
  }
  return answers;
}

/** Whether the connection failed, rather than the request: `ECONNREFUSED`, `ECONNRESET` … */
function isDisconnect({ status, error = "" }: Sample): boolean {
  return status === 0 && error.startsWith("E");
}

/** Whether the models that are in both say the same. */
function isSame(some: Answers, others: Answers): boolean {
  return Object.entries(some).every(
    ([model, probability]) => Math.abs(probability - (others[model] ?? probability)) <= SAME,
  );
}

/** Figures of some requests. */
export interface Summary {
  readonly requests: number;
  readonly failed: number;
  /** Of these, the ones that had the answer to another photo. */
  readonly wrong: number;
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
    wrong: samples.filter(({ error }) => error === WRONG).length,
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
