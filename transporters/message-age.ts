/** Milliseconds per millisecond by which an estimate is allowed to rise: forgives clocks that drift or were paused. */
const DRIFT = 0.01;
/** Senders remembered; a restarted node is a new one. */
const MAX_SENDERS = 1000;

/**
 * How old a message is, though no two clocks agree. RabbitMQ strips a message's expiry when it dead-letters it, and
 * wall clocks of nodes may be seconds apart, so each message carries its sender's monotonic time: the difference to
 * our own is the clocks' offset plus the time on the way. The smallest difference seen of late (heartbeats come every
 * few seconds) is the offset; what a message has above it, it has waited. Never over-estimates while the sender's
 * clock runs, so nothing is dropped early.
 */
export class MessageAge {
  readonly #now: () => number;
  readonly #senders = new Map<string, { offset: number; seenAt: number }>();

  /** @param now monotonic milliseconds */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /**
   * Milliseconds since `sender` wrote a message at `at` on its clock, not counting the fastest way here.
   * Every message must be shown, young ones above all.
   */
  of(sender: string, at: number): number {
    const now = this.#now();
    const sample = now - at;
    const known = this.#senders.get(sender);
    const offset = known ? Math.min(sample, known.offset + (now - known.seenAt) * DRIFT) : sample;
    this.#senders.delete(sender);
    this.#senders.set(sender, { offset, seenAt: now });
    if (this.#senders.size > MAX_SENDERS) {
      const [oldest] = this.#senders.keys();
      if (oldest !== undefined) this.#senders.delete(oldest);
    }
    return sample - offset;
  }
}
