import type { Channel, Clock, Message } from "./ports.ts";
import type { Topology } from "./topology.ts";
import type { Ruling } from "./trials.ts";

/**
 * A process that has been without a connection for this long is taken for dead, if no other has come in its place under
 * its name before, which proves it at once. Three times the longest pause between two attempts to connect.
 */
const GONE_MS = 9000;
/** One that has a connection and answers nobody hangs; this long, and what it was given is taken for the reason. */
const HANGS_MS = 15_000;

/** What the judge needs from the requester. */
export interface Bench {
  readonly nodeID: string;
  readonly clock: Clock;
  readonly topology: Topology;
  /** Whether somebody still waits for the request. */
  waitsFor(id: string): boolean;
  /** Ends a request that is poison. */
  convict(id: string): void;
}

/** A request was in a process with nothing else beside it. */
interface Trial {
  /** Node ID of that process. */
  readonly node: string;
  /** And its instance. */
  readonly by: string;
  /** When it was first asked in vain; undefined while it is not doubted. */
  silentSince: number | undefined;
  /** When RabbitMQ first said that it has no connection. */
  goneSince: number | undefined;
}

/**
 * The caller's part in the trials of its requests. It alone outlives them, so it remembers which process was allowed to
 * try a request alone. When another one asks for the same, the first either died or lost its connection: it is asked,
 * by its instance, whether it is still there.
 */
export class Judge {
  readonly #bench: Bench;
  readonly #trials = new Map<string, Trial>();
  /** The latest question about a request that a process has taken back. */
  readonly #withdrawn = new Map<string, { readonly by: string; readonly number: number }>();
  /** The latest instance of every node. */
  readonly #instances = new Map<string, string>();
  #channel: Channel | undefined;

  constructor(bench: Bench) {
    this.#bench = bench;
  }

  /** Requests that were tried alone and are not answered. */
  get size(): number {
    return this.#trials.size;
  }

  resume(channel: Channel): void {
    if (channel === this.#channel) return;
    this.#channel = channel;
    // A trial may have ended well while we were away, and its process have died since.
    this.#trials.clear();
  }

  isTried(id: string): boolean {
    return this.#trials.has(id);
  }

  forget(id: string): void {
    this.#trials.delete(id);
    this.#withdrawn.delete(id);
  }

  /** A node asks to try a request alone: `TRIAL`. */
  asked({ properties: { messageId: id, appId: node, headers } }: Message): void {
    const by = headers?.["by"];
    if (id === undefined || node === undefined || typeof by !== "string") return;
    const withdrawn = this.#withdrawn.get(id);
    // It comes late, over a connection that was cut: whoever asked has asked for something else since, or has died.
    if (withdrawn?.by === by && Number(headers?.["number"]) <= withdrawn.number) return;
    this.peerIs(node, by);
    this.#send(this.#bench.topology.nodeExchange, node, "RULING", id, { ruling: this.#rule(id, node, by) });
  }

  /** A node told which process it is. */
  peerIs(node: string, instance: string): void {
    this.#instances.set(node, instance);
  }

  /** A node left in good order, or is gone. */
  peerLeft(node: string): void {
    this.#instances.delete(node);
  }

  /** A process says whether it still has a request: `HERE`. */
  heard({ properties: { messageId: id = "", headers } }: Message): void {
    const { by, has, number } = headers ?? {};
    if (typeof by === "string" && typeof number === "number" && this.#bench.waitsFor(id))
      this.#withdrawn.set(id, { by, number });
    const trial = this.#trials.get(id);
    if (!trial || by !== trial.by) return;
    // It lives. If it has the request, its answer will come; if not, it was no death that ended the trial.
    trial.silentSince = undefined;
    trial.goneSince = undefined;
    if (has !== true) this.#trials.delete(id);
  }

  /** RabbitMQ has no queue for our question: the process has no connection. */
  returned({ properties: { messageId: id = "" } }: Message): void {
    const trial = this.#trials.get(id);
    if (trial) trial.goneSince ??= this.#bench.clock.now();
  }

  #rule(id: string, node: string, by: string): Ruling {
    const { clock, topology, waitsFor, convict } = this.#bench;
    if (!waitsFor(id)) return "drop";
    const trial = this.#trials.get(id);
    // One that asks again did not begin: what it runs it does not ask for.
    if (!trial || trial.by === by) {
      this.#trials.set(id, { node, by, silentSince: undefined, goneSince: undefined });
      return "go";
    }
    trial.silentSince ??= clock.now();
    const replaced = (this.#instances.get(trial.node) ?? trial.by) !== trial.by;
    const past = (since: number | undefined, ms: number) => since !== undefined && clock.now() - since >= ms;
    if (replaced || past(trial.goneSince, GONE_MS) || past(trial.silentSince, HANGS_MS)) {
      convict(id);
      return "poison";
    }
    this.#send(topology.nodeExchange, trial.by, "PROBE", id, {});
    return "wait";
  }

  #send(
    exchange: string,
    key: string,
    type: string,
    messageId: string,
    headers: Record<string, unknown>,
  ): void {
    this.#channel?.publish(exchange, key, Buffer.alloc(0), {
      type,
      messageId,
      appId: this.#bench.nodeID,
      headers,
      mandatory: type === "PROBE",
    });
  }
}
