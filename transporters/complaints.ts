/** The part of Moleculer's logger that complains. */
export interface Warner {
  warn(message: string, details: Record<string, unknown>): void;
}

const INTERVAL_MS = 60_000;

/** Warnings about what others do to us: once a minute for each kind, with a count, or anyone could fill the log. */
export class Complaints {
  readonly #logger: Warner;
  readonly #now: () => number;
  readonly #kinds = new Map<string, { at: number; suppressed: number }>();

  constructor(logger: Warner, now: () => number = () => performance.now()) {
    this.#logger = logger;
    this.#now = now;
  }

  /** @param message names the kind, so it must be a constant */
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
}
