/** What a node tells of itself with every heartbeat. */
export interface LoadReport {
  /** CPU used, as a share of the limit: 0 to 1. */
  readonly cpu: number;
  /** Share of the time it wanted a core that it waited for one: 0 to 1. */
  readonly wait: number;
  /** Memory used, as a share of the limit: 0 to 1. */
  readonly memory: number;
  /** Items that wait in its queues. */
  readonly queued: number;
  /** Items or requests it works on. */
  readonly inFlight: number;
  /** It wants no new work: it shuts down, or lacks what it needs for it. */
  readonly draining: boolean;
}

/** How a request to a node ended, as far as it tells of the node. */
export type Outcome =
  /** The node answered. */
  | "answered"
  /** Another node had to answer, the node refused, or nobody answered in time. */
  | "missed"
  /** The request failed for a reason that says nothing of the node. */
  | "failed";

/** What this process knows of a node. Times are this process's own: the clocks of two nodes are never compared. */
export interface NodeLoad {
  /** Start-up of the node, as it was first seen here: a restarted one has another. */
  readonly instanceID: string | undefined;
  /** Absent until the first heartbeat. */
  readonly report: LoadReport | undefined;
  /** When the report came in. */
  readonly reportedAt: number;
  /** Work that others had given it by that report, in items: what it had, less what was ours. */
  readonly backlog: number;
  /** The last sign of life: a heartbeat or an answer. */
  readonly heardAt: number;
  /** When it was first seen. */
  readonly since: number;
  /** Requests of this process that it has not answered yet. Always fresh. */
  readonly inFlight: number;
  /**
   * Milliseconds it lately took for a request of this process, divided by the requests it had of us then: the time of
   * one alone. Absent until the first answer.
   */
  readonly paceMs: number | undefined;
  readonly pacedAt: number;
  /** Requests it missed, as of `missedAt`; whoever reads it halves it every `MISS_HALF_LIFE_MS`. */
  readonly misses: number;
  readonly missedAt: number;
}

/** A miss is forgotten by half in this time, so that a node which recovered is tried again within seconds. */
export const MISS_HALF_LIFE_MS = 1000;

/** More misses at once say no more, and would take too long to forget. */
const MAX_MISSES = 16;

/** Part that the latest answer has in the pace, at least. */
const PACE_SHARE = 0.2;

/** Shorter times are the noise of the network and of timers. */
const MIN_PACE_MS = 1;

/** A pace that nothing confirms counts for half as much, as a ratio, after each of these: slow nodes are tried again. */
const PACE_HALF_LIFE_MS = 2000;

/** How much the node's pace still counts at `now`: 1 to 0. */
function confidence({ pacedAt }: NodeLoad, now: number): number {
  return 2 ** ((pacedAt - now) / PACE_HALF_LIFE_MS);
}

/**
 * The node's pace at `now`: what was measured, fading into `fallback`, which is also what a node without a pace has.
 *
 * @param fallback the pace of the node it is compared with
 */
export function paceAt(node: NodeLoad, now: number, fallback: number): number {
  return node.paceMs === undefined ? fallback : fallback * (node.paceMs / fallback) ** confidence(node, now);
}

/** Misses still remembered at `now`. */
export function missesAt({ misses, missedAt }: NodeLoad, now: number): number {
  return misses === 0 ? 0 : misses * 2 ** ((missedAt - now) / MISS_HALF_LIFE_MS);
}

/** A node of which nothing is known but that it is there. */
export function newcomer(now: number, instanceID?: string): NodeLoad {
  return {
    instanceID,
    report: undefined,
    reportedAt: now,
    backlog: 0,
    heardAt: now,
    since: now,
    inFlight: 0,
    paceMs: undefined,
    pacedAt: now,
    misses: 0,
    missedAt: now,
  };
}

type Entry = { -readonly [K in keyof NodeLoad]: NodeLoad[K] };

/** The latest load of every node, and what this process itself has in flight to each. */
export class LoadTable {
  readonly #now: () => number;
  readonly #nodes = new Map<string, Entry>();

  /** @param now a clock in milliseconds that never goes back */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  get now(): number {
    return this.#now();
  }

  get(node: string): NodeLoad | undefined {
    return this.#nodes.get(node);
  }

  /** A node is there. One that was started anew begins from nothing. */
  seen(node: string, instanceID?: string): void {
    const entry = this.#nodes.get(node);
    if (
      !entry ||
      (instanceID !== undefined && entry.instanceID !== undefined && entry.instanceID !== instanceID)
    ) {
      this.#nodes.set(node, newcomer(this.#now(), instanceID));
    } else entry.instanceID ??= instanceID;
  }

  forget(node: string): void {
    this.#nodes.delete(node);
  }

  /** A heartbeat came in; one of a peer without our middleware has no report. */
  heartbeat(node: string, report: LoadReport | undefined): void {
    const entry = this.#entry(node);
    entry.heardAt = this.#now();
    if (!report) return;
    entry.report = report;
    entry.reportedAt = entry.heardAt;
    entry.backlog = Math.max(0, report.queued + report.inFlight - entry.inFlight);
  }

  /** A request goes out to the node. The first call of the returned function ends it; later ones do nothing. */
  begin(node: string): (outcome: Outcome) => void {
    const entry = this.#entry(node);
    const ahead = ++entry.inFlight;
    const sentAt = this.#now();
    let open = true;
    return (outcome) => {
      if (!open) return;
      open = false;
      entry.inFlight--;
      const now = this.#now();
      if (outcome === "answered") {
        const paceMs = Math.max(MIN_PACE_MS, (now - sentAt) / ahead);
        const old = (1 - PACE_SHARE) * confidence(entry, now);
        entry.paceMs = entry.paceMs === undefined ? paceMs : old * entry.paceMs + (1 - old) * paceMs;
        entry.pacedAt = now;
        entry.heardAt = now;
      } else if (outcome === "missed") {
        entry.misses = Math.min(MAX_MISSES, missesAt(entry, now) + 1);
        entry.missedAt = now;
      }
    };
  }

  #entry(node: string): Entry {
    let entry = this.#nodes.get(node);
    if (!entry) {
      entry = newcomer(this.#now());
      this.#nodes.set(node, entry);
    }
    return entry;
  }
}
