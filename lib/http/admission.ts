import { ServingError } from "../errors.ts";

export interface AdmissionOptions {
  /** Requests held at once. At least 1. */
  readonly maxInFlight: number;
  /** Bytes of bodies held at once. At least 1. */
  readonly maxBufferedBytes: number;
}

/** One request's place. */
export interface Lease {
  /** Counts bytes that the request now holds. @throws ServingError QUEUE_FULL when that is more than all may hold */
  hold(bytes: number): void;
  /** Gives back place and bytes. Further calls do nothing. */
  release(): void;
}

/** The bounded number of requests and bytes behind the door: what does not fit is refused at once, never queued. */
export class Admission {
  readonly #options: AdmissionOptions;
  #inFlight = 0;
  #bytes = 0;

  constructor(options: AdmissionOptions) {
    for (const name of ["maxInFlight", "maxBufferedBytes"] as const) {
      const value = options[name];
      if (!Number.isInteger(value) || value < 1) {
        throw new TypeError(
          `Expected a positive integer for ${name} but received ${value} of type ${typeof value}`,
        );
      }
    }
    this.#options = options;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Takes a place. Bytes are counted as they come, not as announced, so that clients who announce much and send
   * nothing keep nobody out; but an announcement that cannot fit now is refused before its body is read.
   *
   * @param announced the request's Content-Length, 0 if unknown
   * @throws ServingError QUEUE_FULL
   */
  enter(announced: number): Lease {
    const { maxInFlight } = this.#options;
    if (this.#inFlight >= maxInFlight) {
      throw new ServingError("QUEUE_FULL", `The gateway holds ${maxInFlight} requests, which is all it may`);
    }
    this.#assertRoom(announced);
    this.#inFlight += 1;
    let held = 0;
    let released = false;
    return {
      hold: (bytes) => {
        this.#assertRoom(bytes);
        this.#bytes += bytes;
        held += bytes;
      },
      release: () => {
        if (released) return;
        released = true;
        this.#inFlight -= 1;
        this.#bytes -= held;
      },
    };
  }

  #assertRoom(bytes: number): void {
    const { maxBufferedBytes } = this.#options;
    if (this.#bytes + bytes > maxBufferedBytes) {
      throw new ServingError(
        "QUEUE_FULL",
        `The gateway has no room for this body (${maxBufferedBytes} bytes in all)`,
      );
    }
  }
}
