import type { ServiceBroker } from "moleculer";
import { perBroker } from "../per-broker.ts";

export type HealthState = "starting" | "ready" | "draining" | "stopped";

/** Something a node cannot do without besides its services. */
export interface Requirement {
  /** What probes name while it is missing: `dispatcher`, `decoder`. */
  readonly name: string;
  /** "ready": no work meanwhile; "live": only a new process mends it. */
  readonly probe: Probe;
  /** Whether it is there now. Asked at each probe, so it must be cheap. */
  readonly met: () => boolean;
}

/**
 * Life of a node:
 *
 *     starting ──► ready ──► draining ──► stopped
 *         └───────────────────▲
 *
 * There is no way back: a node that drains never takes work again, whatever finishes starting meanwhile.
 */
export class Health {
  #state: HealthState = "starting";
  readonly #pending = new Set<string>();
  readonly #requirements = new Set<Requirement>();

  get state(): HealthState {
    return this.#state;
  }

  /** Services that have begun to start and are not ready: a model's is ready once it is warm. */
  get pending(): readonly string[] {
    return [...this.#pending];
  }

  serviceStarting(name: string): void {
    this.#pending.add(name);
  }

  /** Also for a service that was removed before it was ready. */
  serviceSettled(name: string): void {
    this.#pending.delete(name);
  }

  /** Makes a probe depend on something; returns what takes that back. */
  require(requirement: Requirement): () => void {
    this.#requirements.add(requirement);
    return () => this.#requirements.delete(requirement);
  }

  /** Names of what a probe misses. A node that is not live is not ready either. */
  missing(probe: Probe): readonly string[] {
    return [...this.#requirements]
      .filter((each) => (probe === "ready" || each.probe === probe) && !each.met())
      .map(({ name }) => name);
  }

  /** The broker has started. */
  ready(): void {
    this.#move("ready", ["starting"]);
  }

  /** @returns whether it was this call that began the drain */
  drain(): boolean {
    return this.#move("draining", ["starting", "ready"]);
  }

  stop(): void {
    this.#move("stopped", ["draining", "starting", "ready"]);
  }

  #move(to: HealthState, from: readonly HealthState[]): boolean {
    if (!from.includes(this.#state)) return false;
    this.#state = to;
    return true;
  }
}

/** The broker's health; kept up to date by the health middleware. */
export const healthOf = perBroker(() => new Health());

/** Which question a probe asks: restart me if not, or send me work only if so. */
export type Probe = "live" | "ready";

export interface HealthResponse {
  /** HTTP status: 200 or 503. */
  readonly status: 200 | 503;
  readonly body: {
    readonly node: string;
    readonly state: HealthState;
    /**
     * What stands between this answer and a 200: a state, `transporter`, `service <name>`, or the name of a
     * requirement. Empty at 200.
     */
    readonly missing: readonly string[];
  };
}

/**
 * The answer to a probe. That there is one already says that the event loop turns. Live fails only for what a
 * restart would mend: a node that waits for RabbitMQ is alive and not ready, or an outage there would restart
 * everything here.
 */
export function healthResponse(broker: ServiceBroker, probe: Probe): HealthResponse {
  const health = healthOf(broker);
  const { state, pending } = health;
  const missing =
    probe === "live"
      ? [...[state].filter((each) => each === "stopped"), ...health.missing("live")]
      : [
          ...[state].filter((each) => each !== "ready"),
          ...(isConnected(broker) ? [] : ["transporter"]),
          ...pending.map((name) => `service ${name}`),
          ...health.missing("ready"),
        ];
  return { status: missing.length === 0 ? 200 : 503, body: { node: broker.nodeID, state, missing } };
}

/** A node without a transporter is as connected as it wants to be. */
function isConnected({ transit }: ServiceBroker): boolean {
  if (!transit) return true;
  // Moleculer leaves `transit.connected` as it was when the connection is lost, and `tx.connected` when only the
  // channel is. Our transporter's `alive` is the whole truth.
  const { tx } = transit;
  return transit.connected && tx.connected && !("alive" in tx && tx.alive === false);
}
