import type { ServingError } from "../../lib/errors.ts";
import type { Random } from "../../testkit/random.ts";
import type { VirtualClock } from "../../testkit/virtual-clock.ts";
import { Messenger } from "../../transporters/messenger.ts";
import { type Settings, settings } from "../../transporters/options.ts";
import type { Clock } from "../../transporters/ports.ts";
import type { PeerConnection } from "../../transporters/requester.ts";
import { Topology } from "../../transporters/topology.ts";
import { Warnings } from "../../transporters/warnings.ts";
import { type Link, type Rabbit, STOPPED } from "./rabbit.ts";

const HEARTBEAT_MS = 2000;
/** As Moleculer's: a node that was not heard for so long is gone. */
const SILENCE_MS = 6000;
const BROADCASTS = ["DISCOVER", "INFO", "DISCONNECT", "HEARTBEAT"];

const topology = new Topology("MOL-sim");

/** Moleculer's packets, as far as requests need them. */
interface Packet {
  readonly cmd: string;
  readonly sender: string;
  readonly instance: string;
  readonly actions?: readonly string[];
  readonly connection?: PeerConnection;
}

/** What a caller asks for. */
export interface Call {
  readonly id: string;
  readonly sender: string;
  readonly timeout: number;
  readonly meta?: { readonly $suspect?: boolean };
}

interface Reply {
  readonly id: string;
  readonly code: string;
  readonly by: string;
}

/** A process's own time: another beginning than the others', and it may stand still while theirs goes on. */
export class ProcessClock implements Clock {
  readonly #time: VirtualClock;
  readonly #timers = new Set<unknown>();
  #offset: number;
  #frozen: (() => void)[] | undefined;
  #dead = false;

  constructor(time: VirtualClock, offset: number) {
    this.#time = time;
    this.#offset = offset;
  }

  now(): number {
    return this.#time.now() + this.#offset;
  }

  setTimeout(fn: () => void, ms: number): unknown {
    const timer = this.#time.setTimeout(() => {
      this.#timers.delete(timer);
      this.run(fn);
    }, ms);
    this.#timers.add(timer);
    return timer;
  }

  clearTimeout(handle: unknown): void {
    this.#timers.delete(handle);
    this.#time.clearTimeout(handle);
  }

  /** Timers that are set. */
  get pending(): number {
    return this.#timers.size;
  }

  /** Something happens in this process: now, once it thaws, or never. */
  run(fn: () => void): void {
    if (this.#dead) return;
    if (this.#frozen) this.#frozen.push(fn);
    else fn();
  }

  freeze(): void {
    this.#frozen ??= [];
  }

  get isFrozen(): boolean {
    return this.#frozen !== undefined;
  }

  thaw(): void {
    const waiting = this.#frozen ?? [];
    this.#frozen = undefined;
    for (const fn of waiting) this.run(fn);
  }

  die(): void {
    this.#dead = true;
  }

  /** Its monotonic clock was set, as that of a machine that was moved. */
  jump(ms: number): void {
    this.#offset += ms;
  }
}

export interface ProcessOptions {
  readonly rabbit: Rabbit;
  readonly time: VirtualClock;
  readonly random: Random;
  readonly nodeID: string;
  readonly instanceID: string;
  /** What it serves; none: it only calls. */
  readonly actions: readonly string[];
  readonly settings: Partial<Settings>;
  readonly clock: ProcessClock;
  /** Computes one call; whoever answers does so by `answer`. */
  readonly work: (process: SimulatedProcess, call: Call) => void;
  /** A call of this process has ended. */
  readonly answered: (id: string, code: string) => void;
  /** RabbitMQ will never take this process. */
  readonly fatal: (message: string) => void;
  readonly log: (line: string) => void;
}

/**
 * One process: the real connection, requester, consumer, dead-letter and verdict code, with as much of Moleculer around
 * it as passes packets between nodes.
 */
export class SimulatedProcess {
  readonly nodeID: string;
  readonly clock: ProcessClock;
  readonly #options: ProcessOptions;
  readonly #messenger: Messenger;
  readonly #settings: Settings;
  /** Nodes that serve, and when they were last heard. */
  readonly #known = new Map<string, { heardAt: number; readonly actions: readonly string[] }>();
  /** Calls of this process without an outcome, as Moleculer keeps them: the first answer ends one. */
  readonly #pending = new Set<string>();
  /** Handlers that run, by call. */
  readonly #handling = new Map<string, () => void>();
  #epochs = 0;
  #introduced = false;
  #leaving = false;
  alive = true;
  /** Sends no more heartbeats. */
  silent = false;
  link: Link | undefined;

  constructor(options: ProcessOptions) {
    const { rabbit, clock, nodeID, instanceID, random, log } = options;
    this.#options = options;
    this.nodeID = nodeID;
    this.clock = clock;
    this.#settings = {
      ...settings({ url: rabbit.urls(Math.floor(random.next() * rabbit.members)) }),
      ...options.settings,
    };
    const say = (message: string, details?: Record<string, unknown>) =>
      log(`${nodeID}: ${message}${details ? ` ${JSON.stringify(details)}` : ""}`);
    const warnings = new Warnings({ info: say, warn: say, error: say }, () => clock.now());
    this.#messenger = new Messenger({
      nodeID,
      instanceID,
      topology,
      settings: this.#settings,
      connect: rabbit.connector(
        (link) => {
          this.link = link;
          if (!this.alive) link.processDied();
          else if (clock.isFrozen) link.cut(STOPPED);
        },
        (event) => clock.run(event),
      ),
      warnings,
      random: random.next,
      clock,
      newEpoch: () => `${instanceID}-${this.#epochs++}`,
      hears: () => BROADCASTS,
      handle: (body) => this.#handle(body),
      failure: (_sender, id, error: ServingError) =>
        encode({ id, code: error.type, by: nodeID } satisfies Reply),
      // Without a look at what is pending: what has ended must not be refused.
      refuse: (id, error) => this.#ended(id, error.type),
      // It is for cancellations, and nobody hangs up here.
      taken() {},
      packet: (type, content) => this.#receive(type, content),
      opened: () => this.#opened(),
      closed: () => {},
      fatal: options.fatal,
    });
  }

  get instanceID(): string {
    return this.#options.instanceID;
  }

  /** Requests it may run at once. */
  get prefetch(): number {
    return this.#settings.prefetch;
  }

  /** What it keeps of requests. */
  get kept() {
    const { requester, consumer } = this.#messenger;
    return {
      "own requests": requester.size,
      "own requests that were tried": requester.tried,
      "requests of others": consumer.inFlight,
      answers: consumer.answersKept,
    };
  }

  /** Names of the queues of its connection. */
  get ownQueues(): string[] {
    const { seat } = this.#messenger;
    return [topology.inbox(seat).name, topology.targeted(seat, this.#settings.stealAfterMs).name];
  }

  async start(): Promise<void> {
    await this.#messenger.connection.start();
    if (!this.alive || !this.#messenger.isOpen) return;
    this.#introduced = true;
    this.#introduce();
    this.#beat();
  }

  /** SIGKILL. */
  kill(): void {
    if (!this.alive) return;
    this.alive = false;
    this.clock.die();
    this.link?.processDied();
  }

  /** SIGTERM: takes no more, finishes what it has, leaves. */
  async stop(): Promise<void> {
    this.#leaving = true;
    await this.#messenger.consumer.drain();
    if (!this.alive) return;
    this.#tell({ cmd: "DISCONNECT", sender: this.nodeID, instance: this.#options.instanceID });
    await this.#messenger.connection.stop();
    this.alive = false;
    this.clock.die();
    // Whatever RabbitMQ made of the goodbye.
    this.link?.processDied();
  }

  /** SIGSTOP, until `thaw`. */
  freeze(): void {
    this.clock.freeze();
    this.link?.cut(STOPPED);
  }

  thaw(): void {
    this.link?.heal(STOPPED);
    this.clock.thaw();
  }

  /**
   * @param bytes by which the request is larger than others
   * @returns whether there is a node to ask
   */
  call({ id, timeout }: Pick<Call, "id" | "timeout">, action: string, bytes: number): boolean {
    const nodes = [...this.#known]
      .filter(([, { actions }]) => actions.includes(action))
      .map(([nodeID]) => nodeID);
    const target = nodes[Math.floor(this.#options.random.next() * nodes.length)];
    if (target === undefined) return false;
    const body = encode({ id, sender: this.nodeID, timeout, filler: "x".repeat(bytes) });
    this.#pending.add(id);
    this.#messenger.requester.send({ id, action, target, pinned: false, body, timeout });
    return true;
  }

  /** The caller waits no longer. */
  forget(id: string): void {
    this.#pending.delete(id);
    this.#messenger.requester.forget(id);
  }

  /** A handler has its result. */
  answer(id: string, code: string): void {
    this.#messenger.consumer.answer(id, encode({ id, code, by: this.nodeID } satisfies Reply));
    this.#handling.get(id)?.();
    this.#handling.delete(id);
  }

  #ended(id: string, code: string): void {
    this.forget(id);
    this.#options.answered(id, code);
  }

  #handle(body: Buffer): Promise<void> {
    const call: Call & { timeout: number } = JSON.parse(body.toString());
    this.#messenger.consumer.annotate(call as never);
    return new Promise((resolve) => {
      this.#handling.set(call.id, resolve);
      this.#options.work(this, call);
    });
  }

  #opened(): void {
    for (const known of this.#known.values()) known.heardAt = this.clock.now();
    if (this.#introduced) this.#introduce();
  }

  #introduce(): void {
    this.#tell({ cmd: "DISCOVER", sender: this.nodeID, instance: this.#options.instanceID });
    void this.#announce();
  }

  async #announce(target?: string): Promise<void> {
    const { actions, instanceID } = this.#options;
    if (this.#leaving) return;
    await this.#messenger.consumer
      .serve(actions.length > 0 ? actions : undefined)
      .catch((error: Error) => this.#messenger.connection.fail(error.message));
    const connection = this.#messenger.address;
    this.#tell({ cmd: "INFO", sender: this.nodeID, instance: instanceID, actions, connection }, target);
  }

  #tell(packet: Packet, target?: string): void {
    this.#messenger.tell(packet.cmd, target, encode(packet));
  }

  #beat(): void {
    this.#tell({ cmd: "HEARTBEAT", sender: this.nodeID, instance: this.#options.instanceID });
    const now = this.clock.now();
    for (const [nodeID, { heardAt }] of this.#messenger.isOpen ? [...this.#known] : []) {
      if (now - heardAt < SILENCE_MS) continue;
      this.#known.delete(nodeID);
      this.#messenger.requester.peerSilent(nodeID);
    }
    if (!this.silent) this.clock.setTimeout(() => this.#beat(), HEARTBEAT_MS);
  }

  #receive(type: string, content: Buffer): void {
    if (type === "RES") {
      const { id, code } = JSON.parse(content.toString()) as Reply;
      if (this.#pending.has(id)) this.#ended(id, code);
      return;
    }
    const { cmd, sender, actions = [], connection } = JSON.parse(content.toString()) as Packet;
    if (sender === this.nodeID) return;
    const known = this.#known.get(sender);
    if (cmd === "DISCOVER") void this.#announce(sender);
    else if (cmd === "INFO") {
      this.#known.set(sender, { heardAt: this.clock.now(), actions });
      if (connection) this.#messenger.requester.peerConnected(sender, connection);
    } else if (cmd === "DISCONNECT") {
      this.#known.delete(sender);
      this.#messenger.requester.peerLeft(sender);
    } else if (known) known.heardAt = this.clock.now();
    // As Moleculer: who is heard but not known is asked.
    else this.#tell({ cmd: "DISCOVER", sender: this.nodeID, instance: this.#options.instanceID }, sender);
  }
}

function encode(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
