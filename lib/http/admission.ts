import { ServingError } from "../errors.ts";
import { Tally } from "../request/tally.ts";
import { ADDRESS_SHARE } from "./share.ts";

export interface AdmissionOptions {
  /** Requests held at once, from the end of the body on. At least 1. */
  readonly maxInFlight: number;
  /** Bytes of bodies held at once. At least 1. */
  readonly maxBufferedBytes: number;
}

/** What is known of a request when its head is there. */
export interface Arrival {
  /** Its Content-Length, 0 if unknown. */
  readonly announced: number;
  /** What it asks for, by name; undefined: whatever there is. */
  readonly models: readonly string[] | undefined;
  /** Who sends it, as `Clients` tells; undefined: no one in particular. */
  readonly client: string | undefined;
}

/** What one request holds. */
export interface Lease {
  /**
   * Counts bytes that the request now holds.
   * @throws ServingError QUEUE_FULL when that is more than all, or this client, may hold
   */
  hold(bytes: number): void;
  /** Takes a place, to be called once when the body is there. @throws ServingError QUEUE_FULL when there is none */
  takePlace(): void;
  /** Gives back place and bytes. Further calls do nothing. */
  release(): void;
}

/** What one model may hold of all places: a flood on it leaves some to the others. */
const MODEL_SHARE = 7 / 8;

/**
 * The bounded number of requests and bytes behind the door: what does not fit is refused at once, never queued. A body
 * on its way holds bytes, as they come, but no place: else slow clients, who cost nothing, would keep out the others.
 */
export class Admission {
  readonly #options: AdmissionOptions;
  /** Requests held, by model. */
  readonly #byModel = new Tally();
  /** Bytes held, by client. */
  readonly #byClient = new Map<string, number>();
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
   * Lets a request send its body. Bytes are counted as they come, not as announced, so that clients who announce much
   * and send nothing keep nobody out; but what could not be served if it were here now is refused before its body is
   * read.
   *
   * @throws ServingError QUEUE_FULL
   */
  enter({ announced, models, client }: Arrival): Lease {
    const asked = new Set(models ?? ["all models"]);
    this.#assertPlace(asked);
    this.#assertRoom(announced, client);
    let held = 0;
    let placed = false;
    let released = false;
    return {
      hold: (bytes) => {
        this.#assertRoom(bytes, client);
        held += bytes;
        this.#count(bytes, client);
      },
      takePlace: () => {
        this.#assertPlace(asked);
        placed = true;
        this.#inFlight += 1;
        for (const model of asked) this.#byModel.add(model);
      },
      release: () => {
        if (released) return;
        released = true;
        this.#count(-held, client);
        if (!placed) return;
        this.#inFlight -= 1;
        for (const model of asked) this.#byModel.remove(model);
      },
    };
  }

  #count(bytes: number, client: string | undefined): void {
    this.#bytes += bytes;
    if (client === undefined) return;
    const held = (this.#byClient.get(client) ?? 0) + bytes;
    if (held > 0) this.#byClient.set(client, held);
    else this.#byClient.delete(client);
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

  #assertRoom(bytes: number, client: string | undefined): void {
    const { maxBufferedBytes } = this.#options;
    const share = Math.ceil(ADDRESS_SHARE * maxBufferedBytes);
    if (client !== undefined && (this.#byClient.get(client) ?? 0) + bytes > share) {
      throw new ServingError(
        "QUEUE_FULL",
        `The gateway has no room for more of this client (${share} bytes)`,
      );
    }
    if (this.#bytes + bytes > maxBufferedBytes) {
      throw new ServingError(
        "QUEUE_FULL",
        `The gateway has no room for this body (${maxBufferedBytes} bytes in all)`,
      );
    }
  }
}
