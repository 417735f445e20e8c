/** Room for one batch in an engine, from when it is taken until it is released. */
export interface Slot {
  /** Batches in slots of one kind take equally long; timings of different kinds are kept apart. */
  readonly kind: string;
  release(): void;
}

/** Where a batcher's batches are computed. */
export interface Slots<S extends Slot = Slot> {
  /** Most batches at once, from 1. */
  readonly size: number;
  /**
   * A free slot; undefined: there is none now, and `onFree` is called when it is worth asking again.
   */
  take(): S | undefined;
  /** Set by the batcher. */
  onFree: () => void;
}

/** A fixed number of slots that are all alike. */
export class FixedSlots implements Slots {
  readonly size: number;
  #taken = 0;
  onFree = () => {};

  /** @param size from 1 */
  constructor(size: number) {
    this.size = size;
  }

  take(): Slot | undefined {
    if (this.#taken === this.size) return undefined;
    this.#taken++;
    const release = () => {
      this.#taken--;
    };
    return { kind: "", release };
  }
}
