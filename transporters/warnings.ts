/** The part of Moleculer's logger that is used here. */
export interface Logger {
  info(message: string, details?: Record<string, unknown>): void;
  warn(message: string, details?: Record<string, unknown>): void;
  error(message: string, details?: Record<string, unknown>): void;
}

const INTERVAL_MS = 60_000;

/** Lines for the log. What others do to us is told once a minute for each kind, or anyone could fill the log. */
export class Warnings {
  readonly #logger: Logger;
  readonly #now: () => number;
  readonly #kinds = new Map<string, { at: number; suppressed: number }>();

  /** @param now monotonic milliseconds */
  constructor(logger: Logger, now: () => number) {
    this.#logger = logger;
    this.#now = now;
  }

  /**
   * A warning about what may happen a thousand times a second.
   * @param message names the kind, so it must be a constant
   */
  about(message: string, details: Record<string, unknown> = {}): void {
    const now = this.#now();
    const last = this.#kinds.get(message);
    if (last && now - last.at < INTERVAL_MS) {
      last.suppressed++;
      return;
    }
    this.#kinds.set(message, { at: now, suppressed: 0 });
    this.#logger.warn(message, last?.suppressed ? { ...details, suppressed: last.suppressed } : details);
  }

  /** A change of state, good news. */
  note(message: string, details: Record<string, unknown> = {}): void {
    this.#logger.info(message, details);
  }

  /** A change of state, bad news. */
  alarm(message: string, details: Record<string, unknown> = {}): void {
    this.#logger.error(message, details);
  }
}
