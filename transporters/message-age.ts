/** Milliseconds per millisecond by which an estimate is allowed to rise: forgives clocks that drift or were paused. */
const DRIFT = 0.01;
/** Senders of requests that are remembered; a restarted one is another. Ten times as many as one node has callers. */
const MAX_SENDERS = 10_000;

/**
 * How old a message is, though no two clocks agree. RabbitMQ strips a message's expiry when it dead-letters it, and
 * wall clocks of nodes may be seconds apart, so each message carries its sender's monotonic time: the difference to
 * our own is the clocks' offset plus the time on the way. The smallest difference seen of late is the offset; what a
 * message has above it, it has waited. Never over-estimates while the sender's clock runs, so nothing is dropped early.
 * One that stood still (a machine that was suspended) is found out by the first message that cannot be as old as it
 * looks.
 */
export class MessageAge {
  readonly #now: () => number;
  readonly #senders = new Map<string, { offset: number; seenAt: number }>();

  /** @param now monotonic milliseconds */
  constructor(now: () => number) {
    this.#now = now;
  }

  /**
   * Milliseconds since `sender` wrote a message at `at` on its clock, not counting the fastest way here.
   * Every message must be shown, young ones above all.
   * @param atMost milliseconds it can have taken, where that is known
   */
  of(sender: string, at: number, atMost = Number.POSITIVE_INFINITY): number {
    const now = this.#now();
    const sample = now - at;
    const known = this.#senders.get(sender);
    const expected = known ? Math.min(sample, known.offset + (now - known.seenAt) * DRIFT) : sample;
    const offset = Math.max(expected, sample - atMost);
    this.#senders.delete(sender);
    this.#senders.set(sender, { offset, seenAt: now });
    if (this.#senders.size > MAX_SENDERS) {
      const [oldest] = this.#senders.keys();
      if (oldest !== undefined) this.#senders.delete(oldest);
    }
    return sample - offset;
  }
}
