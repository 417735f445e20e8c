import type { DispatchReason } from "../types.ts";

/** All that the decision depends on. Times in milliseconds, moments on one clock. */
export interface Situation {
  readonly now: number;
  /** The items that would leave: at least one. */
  readonly head: {
    readonly size: number;
    /** The batch cannot grow: it has reached its bound, or it is or stands before an item that must be alone. */
    readonly full: boolean;
    /** When the oldest of them came. */
    readonly queuedAt: number;
    /** The earliest of theirs; Infinity: none. */
    readonly deadline: number;
  };
  /** Batches of this batcher in the engine. */
  readonly running: number;
  /** Batches that could be in the engine at once. */
  readonly slots: number;
  /** Items that wait, are suspect or run. */
  readonly unsettled: number;
  readonly maxQueueDelayMs: number;
  /** No more items will come. */
  readonly draining: boolean;
  /** How long such a batch takes; undefined: not known. */
  readonly takesMs: number | undefined;
}

export type Decision =
  | { readonly leave: DispatchReason; readonly size: number }
  /** Ask again then, or when anything changes. */
  | { readonly wakeAt: number };

/** Whether the head of the queue leaves now that a slot is free, why and how much of it; or when it must. */
export function decide(situation: Situation): Decision {
  const { now, head, running, draining, maxQueueDelayMs, takesMs } = situation;
  if (head.full) return { leave: "full", size: head.size };
  if (running === 0 || maxQueueDelayMs === 0 || draining) {
    return { leave: "idle", size: Math.min(head.size, share(situation)) };
  }
  const delayEnds = head.queuedAt + maxQueueDelayMs;
  if (now >= delayEnds) return { leave: "delay", size: head.size };
  // Before the first measurement any deadline is at stake.
  const takes = takesMs ?? Number.POSITIVE_INFINITY;
  const slackEnds = head.deadline === Number.POSITIVE_INFINITY ? head.deadline : head.deadline - takes;
  if (now >= slackEnds) return { leave: "deadline", size: head.size };
  return { wakeAt: Math.min(delayEnds, slackEnds) };
}

/** Items in each batch if all slots had as many: one large batch beside a small one makes its callers wait longer. */
function share({ running, unsettled, slots }: Situation): number {
  return running === 0 ? Number.POSITIVE_INFINITY : Math.ceil(unsettled / slots);
}
