import type { ErrorCode } from "../errors.ts";

export interface ProbationOptions {
  /** Items that a new version answers before it is trusted. 0: it is trusted at once. */
  readonly requests: number;
  /** Share of them that may fail; one more and it is taken back. From 0 to 1. */
  readonly maxErrorRate: number;
}

/** Failures that are the version's own; a full queue, a deadline or a client that hangs up says nothing of it. */
const OWN_FAULTS: ReadonlySet<ErrorCode> = new Set([
  "PREDICTION_FAILED",
  "ENGINE_CRASHED",
  "POISON_REQUEST",
  "INTERNAL",
]);

export function isOwnFault(code: ErrorCode): boolean {
  return OWN_FAULTS.has(code);
}

/** The first items of a version that has just taken over. */
export class Probation {
  readonly #options: ProbationOptions;
  #answered = 0;
  #failed = 0;

  constructor(options: ProbationOptions) {
    this.#options = options;
  }

  /** "failed" as soon as it is certain: it need not wait for the last of them. */
  get verdict(): "open" | "passed" | "failed" {
    const { requests, maxErrorRate } = this.#options;
    if (this.#failed > maxErrorRate * requests) return "failed";
    return this.#answered + this.#failed >= requests ? "passed" : "open";
  }

  /** @param code the item's error; undefined: it was answered */
  saw(code: ErrorCode | undefined): void {
    if (this.verdict !== "open") return;
    if (code === undefined) this.#answered++;
    else if (isOwnFault(code)) this.#failed++;
  }

  /** For people: "6 of its first 40 items failed". */
  toString(): string {
    return `${this.#failed} of its first ${this.#answered + this.#failed} items failed`;
  }
}
