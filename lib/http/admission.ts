import { ServingError } from "../errors.ts";
import { Tally } from "../request/tally.ts";

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

/** What one model may hold of all places: a flood on it leaves some to the others. */
const MODEL_SHARE = 7 / 8;

/** The bounded number of requests and bytes behind the door: what does not fit is refused at once, never queued. */
export class Admission {
  readonly #options: AdmissionOptions;
  /** Requests held, by model. */
  readonly #byModel = new Tally();
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
   * @param models what it asks for, by name; undefined: whatever there is
   * @throws ServingError QUEUE_FULL
   */
  enter(announced: number, models: readonly string[] | undefined): Lease {
    const asked = new Set(models ?? ["all models"]);
    this.#assertPlace(asked);
    this.#assertRoom(announced);
    this.#inFlight += 1;
    for (const model of asked) this.#byModel.add(model);
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
        for (const model of asked) this.#byModel.remove(model);
      },
    };
  }

  #assertPlace(asked: ReadonlySet<string>): void {
    const { maxInFlight } = this.#options;
    if (this.#inFlight >= maxInFlight) {
      throw new ServingError("QUEUE_FULL", `The gateway holds ${maxInFlight} requests, which is all it may`);
    }
    const share = Math.ceil(MODEL_SHARE * maxInFlight);
    for (const model of asked) {
      if (this.#byModel.count(model) < share) continue;
      throw new ServingError("QUEUE_FULL", `The gateway holds ${share} requests for ${model}, its share`);
    }
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
