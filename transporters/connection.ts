import { StateMachine } from "../lib/state-machine.ts";
import { redact } from "./options.ts";
import type { Channel, Clock, Connect, Connection, Message, Random } from "./ports.ts";
import type { Warnings } from "./warnings.ts";

/** Before the second attempt; a connection that was lost alone is back at once. */
const FIRST_RETRY_MS = 100;
/** Between attempts, at most. By chance between half of it and all, a thousand processes come back over 1.5 s. */
const LAST_RETRY_MS = 3000;
/** For all that is declared on a new connection. A member without its majority may leave a command unanswered. */
const PREPARE_TIMEOUT_MS = 15_000;
/** For a graceful close; after that the connection is left to itself. */
const CLOSE_TIMEOUT_MS = 2000;

/**
 * - `lost`: there is none, and nobody tries. The beginning.
 * - `connecting`: an attempt is under way, or the pause before the next one.
 * - `open`: everything flows.
 * - `blocked`: RabbitMQ is short of memory or disk and takes no messages; what it delivers still comes.
 * - `stopping`: on its way out; nothing is tried again. The end, until the next `start`.
 */
export type ConnectionState = "lost" | "connecting" | "open" | "blocked" | "stopping";

const MOVES: Readonly<Record<ConnectionState, readonly ConnectionState[]>> = {
  lost: ["connecting", "stopping"],
  connecting: ["open", "blocked", "lost", "stopping"],
  open: ["blocked", "lost", "stopping"],
  blocked: ["open", "lost", "stopping"],
  stopping: ["connecting"],
};

/** Who works with the connection. */
export interface ConnectionUser {
  /** Declares what it needs on a new channel and starts its consumers; the connection is not open before. */
  prepare(channel: Channel): Promise<void>;
  /** Messages may be published. */
  opened(channel: Channel): void;
  /** Messages had better wait, until `opened` is called again for the same channel. */
  blocked(reason: string): void;
  /** The channel is of no use any more, and with it whatever `prepare` made on it. */
  closed(reason: string): void;
  returned(message: Message): void;
  drained(): void;
}

export interface ConnectionOptions {
  readonly urls: readonly string[];
  readonly connect: Connect;
  readonly clock: Clock;
  readonly random: Random;
  readonly user: ConnectionUser;
  readonly warnings: Warnings;
  /** Calls for the end of the process: RabbitMQ will never take this one as it is. */
  readonly fatal: (message: string) => void;
}

/** A connection under way or open. */
interface Link {
  connection?: Connection;
  channel?: Channel;
  blocked?: string;
  lost?: string;
}

/**
 * The one connection and the one channel of a process, kept open: whatever breaks, all is closed and opened anew, so
 * there is no half-dead state. Addresses are tried in turn.
 */
export class LastingConnection {
  readonly #options: ConnectionOptions;
  readonly #state = new StateMachine("the connection to RabbitMQ", MOVES, "lost");
  #link: Link = {};
  #everOpen = false;
  #trying: Promise<void> = Promise.resolve();
  #endPause: (() => void) | undefined;

  constructor(options: ConnectionOptions) {
    this.#options = options;
  }

  get state(): ConnectionState {
    return this.#state.state;
  }

  /** For channels of one's own. */
  get connection(): Connection | undefined {
    return this.#link.connection;
  }

  /** The channel, once everything on it is prepared. */
  get channel(): Channel | undefined {
    return this.#state.is("open", "blocked") ? this.#link.channel : undefined;
  }

  /**
   * Resolves when it is open for the first time, or when it was stopped. Later losses are its own affair.
   * @throws what RabbitMQ refused this process with, after telling `fatal`
   */
  start(): Promise<void> {
    this.#state.move("connecting");
    this.#everOpen = false;
    this.#trying = this.#tryUntilOpen(0);
    return this.#trying;
  }

  /** Closes it in good order. */
  async stop(): Promise<void> {
    if (this.#state.is("stopping")) return;
    this.#state.move("stopping");
    this.#endPause?.();
    await this.#close("stopped");
    await this.#trying.catch(() => {});
  }

  /** Something broke that is not worth repairing by itself: start over. */
  fail(reason: string): void {
    this.#lost(this.#link, reason);
  }

  async #tryUntilOpen(firstPauseMs: number): Promise<void> {
    const { urls, warnings, random, fatal } = this.#options;
    if (firstPauseMs > 0) await this.#pause(firstPauseMs);
    for (let attempt = 0; this.#state.is("connecting"); attempt++) {
      const url = urls[attempt % urls.length] ?? "";
      try {
        await this.#open(url);
        return;
      } catch (error) {
        await this.#close(messageOf(error));
        if (!this.#state.is("connecting")) return;
        const reason = messageOf(error);
        if (isMismatch(error) || (!this.#everOpen && isRefusal(error))) {
          this.#state.move("lost");
          fatal(`RabbitMQ at ${redact(url)} refused this node: ${reason}`);
          throw error;
        }
        warnings.about("RabbitMQ cannot be reached, trying again", { url: redact(url), reason });
        await this.#pause(retryDelay(attempt, random));
      }
    }
  }

  async #open(url: string): Promise<void> {
    const { connect, user, warnings } = this.#options;
    const link: Link = {};
    this.#link = link;
    const connection = await connect(url, {
      closed: (reason) => this.#lost(link, reason),
      blocked: (reason) => this.#blocked(link, reason),
      unblocked: () => this.#unblocked(link),
    });
    if (link !== this.#link) {
      await closeBoth(connection, undefined);
      throw new Error("stopped while connecting");
    }
    link.connection = connection;
    const channel = await connection.openChannel({
      returned: (message) => {
        if (link === this.#link) user.returned(message);
      },
      drained: () => {
        if (link === this.#link) user.drained();
      },
      // A dying connection closes its channels first, but knows why.
      closed: (reason) => queueMicrotask(() => this.#lost(link, reason)),
    });
    link.channel = channel;
    await this.#inTime(user.prepare(channel));
    if (link.lost !== undefined) throw new Error(`lost while connecting: ${link.lost}`);
    if (!this.#state.is("connecting")) throw new Error("stopped while connecting");
    this.#everOpen = true;
    this.#state.move(link.blocked === undefined ? "open" : "blocked");
    warnings.note("Connected to RabbitMQ", { url: redact(url) });
    if (link.blocked === undefined) user.opened(channel);
    else user.blocked(link.blocked);
  }

  #blocked(link: Link, reason: string): void {
    link.blocked = reason;
    if (link !== this.#link || !this.#state.is("open")) return;
    this.#state.move("blocked");
    this.#options.user.blocked(reason);
  }

  #unblocked(link: Link): void {
    delete link.blocked;
    if (link !== this.#link || !this.#state.is("blocked") || !link.channel) return;
    this.#state.move("open");
    this.#options.user.opened(link.channel);
  }

  #lost(link: Link, reason: string): void {
    // An attempt under way finds it out by itself, with the first reason.
    link.lost ??= reason;
    if (link !== this.#link || !this.#state.is("open", "blocked")) return;
    this.#state.move("lost");
    this.#options.warnings.alarm("Lost RabbitMQ, reconnecting", { reason });
    this.#trying = this.#reconnect(reason);
    // What refuses a process for good was told to `fatal`.
    this.#trying.catch(() => {});
  }

  async #reconnect(reason: string): Promise<void> {
    await this.#close(reason);
    if (!this.#state.is("lost")) return;
    this.#state.move("connecting");
    await this.#tryUntilOpen(retryDelay(0, this.#options.random));
  }

  async #close(reason: string): Promise<void> {
    const { connection, channel } = this.#link;
    this.#link = {};
    if (channel) this.#options.user.closed(reason);
    if (connection) await this.#unlessLate(closeBoth(connection, channel), CLOSE_TIMEOUT_MS);
  }

  #pause(ms: number): Promise<void> {
    const { clock } = this.#options;
    return new Promise((resolve) => {
      const timer = clock.setTimeout(resolve, ms);
      this.#endPause = () => {
        clock.clearTimeout(timer);
        resolve();
      };
    });
  }

  async #inTime<T>(work: Promise<T>): Promise<T> {
    const late = Symbol("late");
    const outcome = await this.#unlessLate(work, PREPARE_TIMEOUT_MS, late);
    if (outcome === late) throw new Error(`RabbitMQ left a command unanswered for ${PREPARE_TIMEOUT_MS} ms`);
    return outcome as T;
  }

  /** What `work` resolves to, or `late` if it takes longer than `ms`. */
  async #unlessLate<T, L>(work: Promise<T>, ms: number, late?: L): Promise<T | L | undefined> {
    const { clock } = this.#options;
    const { promise, resolve } = Promise.withResolvers<L | undefined>();
    const timer = clock.setTimeout(() => resolve(late), ms);
    try {
      return await Promise.race([work, promise]);
    } finally {
      clock.clearTimeout(timer);
    }
  }
}

/** The channel first: its close follows what was written to it, the connection's would overtake that. */
async function closeBoth(connection: Connection, channel: Channel | undefined): Promise<void> {
  try {
    await channel?.close();
  } catch {
    // Closed already.
  }
  try {
    await connection.close();
  } catch {
    // Closed already.
  }
}

/** Milliseconds before attempt number `attempt` + 1 (0, 1, …): doubling from 100 to 3000, its upper half by chance. */
export function retryDelay(attempt: number, random: Random): number {
  return Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** attempt) * (0.5 + random() / 2);
}

/** Whether RabbitMQ knows us and says no: wrong credentials, or a virtual host that is not ours. */
export function isRefusal(error: unknown): boolean {
  return /Handshake terminated.*\b403\b|ACCESS_REFUSED|NOT_ALLOWED/.test(messageOf(error));
}

/** Whether a queue or exchange exists with other arguments: somebody else's, or of a topology that forgot its version. */
export function isMismatch(error: unknown): boolean {
  return /PRECONDITION_FAILED.*\binequivalent arg\b/.test(messageOf(error));
}

/** @internal */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
