import { inspect } from "node:util";
import { type Clock, systemClock } from "../request/clock.ts";
import type { DispatchReason } from "../types.ts";
import { FixedSlots, type Slot, type Slots } from "./slots.ts";

export interface BatcherOptions<I, O, S extends Slot = Slot> {
  /** The model's name, for errors. */
  readonly name: string;
  /**
   * Computes one batch; called with 1 to `maxBatchSize` inputs and the slot it has. Resolves to one result for each
   * input, in their order. An `Error` in a slot fails that item alone. Rejecting (or throwing) means that the batch
   * failed as a whole and nobody knows whose fault it is: see {@link consequence}.
   *
   * `deadline`: when nobody waits for any of the results any more.
   */
  readonly run: (
    inputs: readonly I[],
    slot: S,
    scope: { readonly deadline: number; readonly signal: AbortSignal },
  ) => Promise<readonly (O | Error)[]>;
  /**
   * Most items in one batch. Minimum: 1. Batches are taken from the queue, so keep `maxQueueSize` at least this.
   * @default 8
   */
  readonly maxBatchSize?: number;
  /**
   * Most items waiting; those in the engine don't count. Also the largest single request. Minimum: 1.
   * @default 64
   */
  readonly maxQueueSize?: number;
  /**
   * Longest time, in milliseconds, that the oldest item waits for company while a slot of the engine is free. Only
   * matters with two slots or more: an engine without any batch takes what is queued at once, and one without a free
   * slot takes nothing. In between, a further slot is used once the batch is full, the delay is over, or a deadline
   * is at stake. Minimum: 0.
   * @default 0
   */
  readonly maxQueueDelayMs?: number;
  /**
   * Where batches are computed, and how many at once.
   * @default one at a time
   */
  readonly slots?: Slots<S>;
  /**
   * Longest time, in milliseconds, that a batch should take in the engine: the batch size is bounded so that it does,
   * by what was measured ({@link BatchPolicy}). Above 0.
   * @default undefined: bounded by `maxBatchSize` only
   */
  readonly latencyTargetMs?: number | undefined;
  /** @default systemClock */
  readonly clock?: Clock;
  /** Called after each batch, for metrics and logs. Must not throw. */
  readonly onBatch?: (report: BatchReport) => void;
}

export interface SubmitOptions {
  /** When to give up waiting, on the batcher's clock. @default undefined: never */
  readonly deadline?: number | undefined;
  /** Aborting takes what still waits out of the queue; what is in the engine stays there. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Each item gets a batch of its own: for a request that is suspected of having brought a node down, so that it
   * takes nobody with it.
   * @default false
   */
  readonly alone?: boolean;
}

/** One item's answer and what happened to it on the way, or why there is none. */
export type SettledItem<O> =
  | {
      readonly ok: true;
      readonly value: O;
      /** Items in the batch that gave the answer. */
      readonly batchSize: number;
      readonly dispatchReason: DispatchReason;
      /** Milliseconds from `submit` until that batch left. Includes batches that failed before, if any. */
      readonly queueMs: number;
      /** Milliseconds that batch spent in the engine. */
      readonly computeMs: number;
    }
  | { readonly ok: false; readonly error: Error };

/** One batch that came back from the engine. */
export interface BatchReport {
  readonly size: number;
  /** A part of a failed batch has that batch's reason. */
  readonly reason: DispatchReason;
  /** Whether this is a part of a batch that failed before. */
  readonly bisected: boolean;
  /** Milliseconds from the oldest item's `submit` until the batch left. */
  readonly queueMs: number;
  /** Milliseconds in the engine. */
  readonly computeMs: number;
  /** What `run` rejected with, or how it broke its contract; undefined: the batch succeeded. */
  readonly error: Error | undefined;
}

/**
 * The options with their defaults.
 *
 * @throws {TypeError} an option is not what it should be
 */
export function checkedOptions<I, O, S extends Slot>(options: BatcherOptions<I, O, S>) {
  const checked = {
    maxBatchSize: 8,
    maxQueueSize: 64,
    maxQueueDelayMs: 0,
    // A batcher without slots of its own asks nothing of them.
    slots: new FixedSlots(1) as unknown as Slots<S>,
    latencyTargetMs: undefined,
    clock: systemClock,
    onBatch: () => {},
    ...options,
  };
  const { maxBatchSize, maxQueueSize, maxQueueDelayMs, latencyTargetMs } = checked;
  for (const [option, value] of Object.entries({ maxBatchSize, maxQueueSize })) {
    checkOption(option, value, "an integer of at least 1", (n) => Number.isInteger(n) && n >= 1);
  }
  const isDelay = (ms: number) => Number.isFinite(ms) && ms >= 0;
  checkOption("maxQueueDelayMs", maxQueueDelayMs, "a finite number of at least 0", isDelay);
  if (latencyTargetMs !== undefined) {
    checkOption("latencyTargetMs", latencyTargetMs, "a number above 0", (ms) => ms > 0);
  }
  return checked;
}

function checkOption(
  option: string,
  value: unknown,
  expected: string,
  isValid: (value: number) => boolean,
): void {
  if (typeof value === "number" && isValid(value)) return;
  throw new TypeError(
    `Expected ${expected} for ${option} but received ${inspect(value)} of type ${typeof value}`,
  );
}
