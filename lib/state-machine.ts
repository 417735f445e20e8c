/**
 * One stored state and one way to change it. A move that is not in the table is a fault in the program, and throws.
 *
 *     const door = new StateMachine("the door", { open: ["closed"], closed: ["open", "locked"], locked: ["closed"] }, "open");
 */
export class StateMachine<State extends string> {
  readonly #of: string;
  readonly #moves: Readonly<Record<State, readonly State[]>>;
  #state: State;

  /**
   * @param of whose state it is, for the error
   * @param moves where each state may lead
   */
  constructor(of: string, moves: Readonly<Record<State, readonly State[]>>, initial: NoInfer<State>) {
    this.#of = of;
    this.#moves = moves;
    this.#state = initial;
  }

  get state(): State {
    return this.#state;
  }

  is(...states: readonly State[]): boolean {
    return states.includes(this.#state);
  }

  canMove(to: State): boolean {
    return this.#moves[this.#state].includes(to);
  }

  /** @throws Error if `to` cannot follow the state it is in */
  move(to: State): void {
    if (!this.canMove(to)) {
      const possible = this.#moves[this.#state].join(" or ") || "nothing";
      throw new Error(`Expected ${possible} to follow "${this.#state}" for ${this.#of} but received "${to}"`);
    }
    this.#state = to;
  }
}
