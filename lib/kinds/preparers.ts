import type { KindOptions, Preparer } from "./kind.ts";
import { KINDS, kindOf } from "./registry.ts";

/** The kinds that a dispatcher prepares. */
export class Preparers {
  readonly #options: (kind: string) => KindOptions;
  readonly #open = new Map<string, Promise<Preparer>>();
  readonly #opened = new Set<Preparer>();

  constructor(options: (kind: string) => KindOptions) {
    this.#options = options;
  }

  /** @throws Error if there is no such kind; what the kind cannot be opened for */
  get(kind: string): Promise<Preparer> {
    let preparer = this.#open.get(kind);
    if (!preparer) {
      preparer = kindOf(kind).open(this.#options(kind));
      this.#open.set(kind, preparer);
      preparer.then(
        (opened) => this.#opened.add(opened),
        // The next input tries again.
        () => this.#open.delete(kind),
      );
    }
    return preparer;
  }

  /** Opens every kind ahead of its first input. */
  async start(): Promise<void> {
    await Promise.all(KINDS.map(({ name }) => this.get(name)));
  }

  /** Whether every kind that was opened can prepare inputs now. */
  get ready(): boolean {
    return [...this.#opened].every(({ ready = true }) => ready);
  }

  async close(): Promise<void> {
    const opened = await Promise.allSettled(this.#open.values());
    await Promise.all(opened.map((each) => (each.status === "fulfilled" ? each.value.close() : undefined)));
  }
}
