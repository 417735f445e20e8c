/** A value's place in a {@link Fifo}; the receipt to leave with. */
export interface Place<T> {
  readonly value: T;
  before: Place<T> | undefined;
  after: Place<T> | undefined;
  waiting: boolean;
}

/**
 * First in, first out, and anyone may leave from the middle: a doubly linked list, O(1) for each operation. A `Set`
 * would do the same, but finding its first member costs O(size) once members have been deleted from its front.
 */
export class Fifo<T> {
  #first: Place<T> | undefined;
  #last: Place<T> | undefined;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Puts `value` at the end. */
  push(value: T): Place<T> {
    const place: Place<T> = { value, before: this.#last, after: undefined, waiting: true };
    if (this.#last) this.#last.after = place;
    else this.#first = place;
    this.#last = place;
    this.#size++;
    return place;
  }

  /** Takes a place out, wherever it stands; false if it had left already. */
  remove(place: Place<T>): boolean {
    if (!place.waiting) return false;
    place.waiting = false;
    if (place.before) place.before.after = place.after;
    else this.#first = place.after;
    if (place.after) place.after.before = place.before;
    else this.#last = place.before;
    this.#size--;
    return true;
  }

  /** Oldest first. The place just yielded may be removed on the way. */
  *[Symbol.iterator](): Generator<Place<T>> {
    for (let place = this.#first; place; place = place.after) yield place;
  }
}
