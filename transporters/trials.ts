import type { Delivery } from "./delivery.ts";
import type { Channel, Clock, Message } from "./ports.ts";

/** What a caller answers a node that asks to try its request alone. */
export type Ruling =
  /** Try it. */
  | "go"
  /** Ask again: an earlier trial of it may still be under way elsewhere. */
  | "wait"
  /** Nobody waits for it any more. */
  | "drop"
  /** A process that tried it, with nobody else in it, is dead. */
  | "poison";

/** After a caller's "wait" it is asked again. */
const WAIT_MS = 500;
/** A caller that does not answer is asked again, and this process goes on with its work until then. */
const RULING_TIMEOUT_MS = 2000;

/**
 * How many suspects are tried together: a quarter of what a node holds at most, a sixteenth of that after each trial
 * that did not end, down to one. With the usual 32 that is 8, then each alone; with a dispatcher's 512: 128, 8, alone.
 * A poison costs a process each time, so the steps are large.
 */
export function groupSize(prefetch: number, failedTrials: number): number {
  return Math.max(1, Math.floor(prefetch / 4 / 16 ** failedTrials));
}

/** A request that was in the hands of a process which did not answer it. */
export interface Suspect {
  readonly delivery: Delivery;
  /** Monotonic milliseconds. */
  readonly deadline: number;
  readonly channel: Channel;
  readonly message: Message;
}

/** What trials need from the consumer. */
export interface Court {
  readonly clock: Clock;
  /** Takes no more requests; resolves once none is running. */
  clear(): Promise<void>;
  /** Requests may be taken again. */
  resume(): void;
  groupSize(suspect: Suspect): number;
  /**
   * Asks its caller; the answer comes by `ruled`.
   * @param number counts the questions of this process
   */
  ask(suspect: Suspect, number: number): void;
  /**
   * Tells its caller that the trial it was asked about has not begun; resolves when RabbitMQ has that, rejects if the
   * channel is gone before.
   * @param number of the question: over another connection it may come later than this
   */
  withdraw(suspect: Suspect, number: number): Promise<void>;
  /** Resolves when it was answered. @param alone nothing else is in the process, and its caller knows */
  run(suspect: Suspect, alone: boolean): Promise<void>;
  /** Ends it without running it. */
  end(suspect: Suspect, why: "expired" | "drop" | "poison"): void;
}

interface Question {
  readonly suspect: Suspect;
  readonly number: number;
}

interface Waiting extends Suspect {
  /** Not to be tried before: monotonic milliseconds. */
  from: number;
}

/**
 * Finds out which of the requests that a dead process held killed it. They are tried in a process that does nothing
 * else, in groups that shrink with each death, so that many innocents are acquitted at once, and the last one alone.
 * Only a death with nobody else in the process convicts, and it is the caller who knows of it: it was asked before.
 * Connections that are lost look like deaths to RabbitMQ; they shrink the groups and prove nothing.
 */
export class Trials {
  readonly #court: Court;
  #waiting: Waiting[] = [];
  #sitting = false;
  /** Asked of its caller, who has not answered. */
  #asked: (Question & { readonly resolve: (ruling: Ruling | "silence") => void }) | undefined;
  #questions = 0;
  /** Asked over a channel that is gone: their callers may have said "go", and take the end of this process for their doing. */
  #unheard: Question[] = [];
  #timer: unknown;

  constructor(court: Court) {
    this.#court = court;
  }

  /** Suspects that wait for their trial. */
  get size(): number {
    return this.#waiting.length;
  }

  add(suspect: Suspect): void {
    this.#waiting.push({ ...suspect, from: 0 });
    this.#sit();
  }

  /**
   * A caller's answer to `ask`.
   * @returns whether it was still waited for
   */
  ruled(id: string, ruling: Ruling): boolean {
    if (this.#asked?.suspect.delivery.id !== id) return false;
    this.#asked.resolve(ruling);
    return true;
  }

  /** The channel is gone, and with it all that waits; RabbitMQ will deliver it again. */
  reset(): void {
    this.#waiting = [];
    this.#court.clock.clearTimeout(this.#timer);
    if (!this.#asked) return;
    this.#unheard.push(this.#asked);
    this.#asked.resolve("wait");
  }

  /** There is a channel again, and nothing is consumed over it before RabbitMQ has read what is written here. */
  attached(): void {
    for (const question of this.#unheard.splice(0)) void this.#withdraw(question);
  }

  /** Resolves when what ends here cannot be taken for its doing any more, or nothing else can begin for now. */
  async #withdraw(question: Question): Promise<void> {
    const { suspect, number } = question;
    await this.#court.withdraw(suspect, number).catch(() => this.#unheard.push(question));
  }

  #sit(): void {
    if (this.#sitting) return;
    this.#sitting = true;
    void this.#untilNoneIsDue().finally(() => {
      this.#sitting = false;
      this.#court.resume();
      this.#comeBack();
    });
  }

  async #untilNoneIsDue(): Promise<void> {
    while (this.#next(false)) {
      await this.#court.clear();
      const first = this.#next(true);
      if (!first) return;
      if (this.#court.groupSize(first) === 1) await this.#alone(first);
      else await this.#together(first);
    }
  }

  /** As many as fit into the smallest group that one of them may be in. */
  async #together(first: Waiting): Promise<void> {
    const group = [first];
    let size = this.#court.groupSize(first);
    for (let next = this.#next(false); next; next = this.#next(false)) {
      size = Math.min(size, this.#court.groupSize(next));
      if (group.length >= size) break;
      group.push(next);
      this.#next(true);
    }
    // A group of one needs no smaller one to follow.
    if (group.length === 1) await this.#alone(first);
    else await Promise.all(group.map((suspect) => this.#court.run(suspect, false)));
  }

  async #alone(suspect: Waiting): Promise<void> {
    const { clock } = this.#court;
    const { promise, resolve } = Promise.withResolvers<Ruling | "silence">();
    const timer = clock.setTimeout(() => resolve("silence"), RULING_TIMEOUT_MS);
    this.#waiting.push(suspect);
    const question = { suspect, number: this.#questions++ };
    this.#asked = { ...question, resolve };
    this.#court.ask(suspect, question.number);
    const ruling = await promise;
    clock.clearTimeout(timer);
    this.#asked = undefined;
    // It may have been asked in time and answer late: what ends here later was not alone.
    if (ruling === "silence") await this.#withdraw(question);
    suspect.from = clock.now() + WAIT_MS;
    // Its channel may be gone meanwhile.
    if (ruling === "silence" || ruling === "wait" || !this.#waiting.includes(suspect)) return;
    this.#waiting = this.#waiting.filter((each) => each !== suspect);
    if (ruling === "go") await this.#court.run(suspect, true);
    else this.#court.end(suspect, ruling);
  }

  /** The one that is due longest, so that none keeps the others waiting; those past their deadline are ended on the way. */
  #next(take: boolean): Waiting | undefined {
    const now = this.#court.clock.now();
    const late = this.#waiting.filter(({ deadline }) => deadline <= now);
    this.#waiting = this.#waiting.filter(({ deadline }) => deadline > now);
    for (const suspect of late) this.#court.end(suspect, "expired");
    let next: Waiting | undefined;
    for (const suspect of this.#waiting) {
      if (suspect.from > now) continue;
      if (!next || suspect.from < next.from) next = suspect;
    }
    if (take) this.#waiting = this.#waiting.filter((suspect) => suspect !== next);
    return next;
  }

  #comeBack(): void {
    const { clock } = this.#court;
    clock.clearTimeout(this.#timer);
    if (this.#waiting.length === 0) return;
    const from = Math.min(...this.#waiting.map((suspect) => suspect.from));
    this.#timer = clock.setTimeout(() => this.#sit(), Math.max(0, from - clock.now()));
  }
}
