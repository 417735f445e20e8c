import type { ServiceBroker } from "moleculer";
import { perBroker } from "../per-broker.ts";
import { LoadMeter, type LoadMeterOptions, type LoadSample } from "./cgroup.ts";
import { type LoadReport, LoadTable } from "./table.ts";

/** Depth of a queue, in items. */
export interface QueueDepth {
  readonly queued: number;
  readonly inFlight: number;
}

/** The load of this node, and what it knows of the others'. One for each broker: {@link loadOf}. */
export class LoadState {
  readonly table: LoadTable;
  readonly #meter: LoadMeter;
  readonly #queues = new Map<string, () => QueueDepth>();
  #sample: LoadSample = { cpu: 0, wait: 0, memory: 0 };
  #running = 0;

  constructor(options: LoadMeterOptions = {}) {
    this.table = new LoadTable(options.now);
    this.#meter = new LoadMeter(options);
  }

  /**
   * Makes a queue of this node count.
   *
   * @param name of the service; one that is already there is replaced
   * @returns takes the queue away again
   */
  registerQueue(name: string, depth: () => QueueDepth): () => void {
    this.#queues.set(name, depth);
    return () => {
      if (this.#queues.get(name) === depth) this.#queues.delete(name);
    };
  }

  /** An action of this node runs, whoever called it, until the returned function is called. */
  begin(): () => void {
    this.#running++;
    return () => {
      this.#running--;
    };
  }

  /** Measures CPU and memory. */
  sample(): LoadSample {
    this.#sample = this.#meter.sample();
    return this.#sample;
  }

  /** CPU and memory as last measured, and the work at hand as it is now. */
  report(draining: boolean): LoadReport {
    let queued = 0;
    let inFlight = 0;
    for (const depth of this.#queues.values()) {
      const { queued: waiting, inFlight: running } = depth();
      queued += waiting;
      inFlight += running;
    }
    // An item in a queue belongs to an action that runs: only what runs beyond the queues is added.
    return { ...this.#sample, queued, inFlight: Math.max(inFlight, this.#running - queued), draining };
  }
}

/** The broker's load. Only who asks first has a say in `options`: the load middleware. */
export const loadOf = perBroker((_, options?: LoadMeterOptions) => new LoadState(options));

/**
 * Whether a node has this action and, as far as is known, takes work: it neither drains nor lacks what it needs. What
 * this node itself lacks is not asked: it may be what the answer is wanted for.
 */
export function takesWork(broker: ServiceBroker, action: string): boolean {
  const endpoints: readonly Endpoint[] = broker.registry.actions.get(action)?.endpoints ?? [];
  const { table } = loadOf(broker);
  return endpoints.some(
    ({ id, isAvailable }) => isAvailable && (id === broker.nodeID || !table.get(id)?.report?.draining),
  );
}

/** What of Moleculer's endpoints counts here. */
interface Endpoint {
  readonly id: string;
  readonly isAvailable: boolean;
}

/** A report as it came over the wire, or `undefined` when it is none: a peer may send anything. */
export function parseReport(value: unknown): LoadReport | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { cpu, wait, memory, queued, inFlight, draining } = value as Partial<
    Record<keyof LoadReport, unknown>
  >;
  if (![cpu, wait, memory].every((share) => isCount(share) && share <= 1)) return undefined;
  if (!isCount(queued) || !isCount(inFlight) || typeof draining !== "boolean") return undefined;
  return { cpu: cpu as number, wait: wait as number, memory: memory as number, queued, inFlight, draining };
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value) && value >= 0;
}
