import { ServingError } from "../lib/errors.ts";
import { discard, keepLetter } from "./dead-letters.ts";
import { type Delivery, readDelivery, type Source } from "./delivery.ts";
import type { MessageAge } from "./message-age.ts";
import { atLeast, type Settings } from "./options.ts";
import type { Channel, Clock, Message } from "./ports.ts";
import type { Queue, Seat, Topology } from "./topology.ts";
import { groupSize, type Ruling, type Suspect, Trials } from "./trials.ts";
import type { Warnings } from "./warnings.ts";

/** What a message may take outside of queues, on machines that are busy. */
const ON_THE_WAY_MS = 1000;

/** How often a drain looks whether trials are over and answers sent that only a new connection can take. */
const DRAIN_LOOK_MS = 20;

/** What the consumer needs from around it. */
export interface ConsumerHost {
  readonly nodeID: string;
  /** Of this process: a restarted one with the same node ID has another. */
  readonly instanceID: string;
  readonly clock: Clock;
  readonly topology: Topology;
  readonly settings: Pick<
    Settings,
    "prefetch" | "stealAfterMs" | "deadLetterTtlMs" | "maxMessageBytes" | "observe"
  >;
  readonly age: MessageAge;
  readonly warnings: Warnings;
  /** Hands a request's body to Moleculer; resolves when its answer was given to `answer`. */
  readonly handle: (body: Buffer) => Promise<void>;
  /** The serialized answer that tells `sender` of the failure of its request `id`. */
  readonly failure: (sender: string, id: string, error: ServingError) => Buffer;
  /** The channel is of no use any more. */
  readonly fail: (reason: string) => void;
}

/** The fields of a request's payload that are ours to correct. */
interface RequestPayload {
  id?: unknown;
  timeout?: number;
  meta?: Record<string, unknown>;
}

interface Running {
  /** Node ID of its caller. */
  readonly sender: string;
  readonly deadline: number;
  readonly alone: boolean;
  understood: boolean;
  /** Its answer, serialized. */
  answer?: Buffer;
  readonly done: Promise<void>;
}

/** A delivery that was read and may be run. */
interface Work {
  readonly delivery: Delivery;
  readonly deadline: number;
  /** The one it came by; undefined if it counts as acknowledged. */
  readonly channel: Channel | undefined;
  readonly message: Message;
}

interface Answer {
  /** Node ID of the caller. Not a queue: it may have another connection by now. */
  readonly to: string;
  readonly body: Buffer;
  /** When it came back first, because its caller had no inbox. */
  readonly returnedAt?: number;
}

/** A caller that lost its connection is back within seconds, or gone: so long an answer is kept for it. */
const ANSWER_KEPT_MS = 10_000;

interface Subscription {
  readonly source: Source | "dead";
  readonly queue: Queue;
  readonly binding?: readonly [exchange: string, key: string];
}

/**
 * The serving half of the transporter: pulls requests for the actions this node announced, decides what to do with
 * each delivery, and acknowledges it after its answer was written on the same channel. So an answer that was not sent
 * leaves its request to be delivered again; a node never runs one request twice at the same time.
 *
 * **One budget.** A node runs at most `prefetch` requests at a time. Those it was chosen for come first: the shared
 * queues are pulled from only while there is room, or a node would take back what left its own queue because it is full.
 *
 * What is consumed follows from a few facts — channel, announced services, draining, room, a trial under way — by
 * `#reconcile`, which compares wanted with actual consumers; each change of a fact ends in it, one at a time.
 */
export class RequestConsumer {
  readonly #host: ConsumerHost;
  readonly #consumers = new Map<string, { readonly tag: string; readonly source: Source | "dead" }>();
  /** Requests between delivery and answer, by ID. */
  readonly #running = new Map<string, Running>();
  /** Deliveries beyond the budget: they were on their way when it was used up. */
  readonly #held: Work[] = [];
  readonly #trials: Trials;
  /**
   * Answers to requests that came by an earlier channel, so that they could not be acknowledged: they come again. Their
   * caller may have been without a connection when the answer was sent, so it is sent once more.
   */
  readonly #answered = new Map<string, Answer>();
  /** Answers made while there was no channel. No more than this node had requests, as it gets none meanwhile. */
  #unsent: Answer[] = [];
  #channel: Channel | undefined;
  #seat: Seat = { nodeID: "", epoch: "" };
  #actions: ReadonlySet<string> = new Set();
  #announced = false;
  #draining = false;
  /** Whether shared queues are pulled from. */
  #hasRoom = true;
  /**
   * What may begin: `open`: all; `emptying`: a trial is about to be, and only what is here already; `clear`: a trial is
   * under way, and nothing but what is tried.
   */
  #floor: "open" | "emptying" | "clear" = "open";
  #prefetch: number;
  #reconciled: Promise<void> = Promise.resolve();

  constructor(host: ConsumerHost) {
    this.#host = host;
    this.#prefetch = host.settings.prefetch;
    this.#trials = new Trials({
      clock: host.clock,
      clear: () => this.#clear(),
      resume: () => this.#resume(),
      groupSize: ({ delivery }) => groupSize(this.#prefetch, delivery.unanswered),
      ask: ({ delivery }, number) => this.#note("TRIAL", delivery.sender, delivery.id, { number }),
      withdraw: async ({ delivery }, number) => {
        if (!this.#channel) throw new Error("There is no channel");
        this.#note("HERE", delivery.sender, delivery.id, { has: false, number });
        await this.#channel.flush();
      },
      run: (suspect, alone) => this.#try(suspect, alone),
      end: (suspect, why) => this.#end(suspect, why),
    });
  }

  /** Requests delivered and not yet answered. */
  get inFlight(): number {
    return this.#running.size + this.#held.length + this.#trials.size;
  }

  /** Answers that are not sent, or may have to be sent again. */
  get answersKept(): number {
    return this.#answered.size + this.#unsent.length;
  }

  /** Consumes over `channel` from now on. */
  attach(channel: Channel, seat: Seat): Promise<void> {
    this.#channel = channel;
    this.#seat = seat;
    this.#consumers.clear();
    // Before anything is consumed, so that no delivery is acknowledged ahead of its answer.
    this.#sendUnsent();
    this.#trials.attached();
    return this.#reconcile();
  }

  /** The channel died, and with it the consumers. What runs goes on; RabbitMQ will deliver it again. */
  detach(): void {
    this.#channel = undefined;
    this.#answered.clear();
    this.#consumers.clear();
    this.#held.length = 0;
    this.#trials.reset();
  }

  /**
   * Makes the consumers match what this node is about to tell others it has. The queues exist before the first caller
   * can know of them.
   * @param actions names of all announced actions; undefined: no service at all is announced
   */
  serve(actions: Iterable<string> | undefined): Promise<void> {
    this.#announced = actions !== undefined;
    // `$node.*` describes the node it runs on, so no other node may answer for it.
    if (actions) this.#actions = new Set([...actions].filter((action) => !action.startsWith("$")));
    return this.#reconcile();
  }

  /**
   * Takes no more requests; resolves when every one that was delivered is answered. That includes those which come
   * until RabbitMQ has cancelled the consumers: given back, each would count as an attempt, and come again at once.
   */
  async drain(): Promise<void> {
    this.#draining = true;
    // A channel that fails meanwhile has no consumers any more either.
    await this.#reconcile().catch(() => {});
    do {
      await this.#none(() => this.inFlight + this.#unsent.length);
      await this.#untilReturned();
    } while (this.#unsent.length > 0);
  }

  /** Ends a drain. */
  reset(): void {
    this.#draining = false;
    this.#announced = false;
    this.#actions = new Set();
  }

  /**
   * Changes how many unanswered requests this node may hold. RabbitMQ applies a prefetch to consumers that start
   * after it, so they start anew; what they already hold stays theirs.
   */
  setPrefetch(prefetch: number): Promise<void> {
    this.#prefetch = atLeast("prefetch", prefetch, 1);
    return this.#reconcile(true);
  }

  /** Corrects a request on its way into Moleculer: the time it has left, and whether it is a suspect. */
  annotate(payload: RequestPayload): void {
    const running = typeof payload.id === "string" ? this.#running.get(payload.id) : undefined;
    if (!running) return;
    running.understood = true;
    payload.timeout = Math.max(1, Math.ceil(running.deadline - this.#host.clock.now()));
    if (running.alone) payload.meta = { ...payload.meta, $suspect: true };
  }

  /** Sends what became of a request that runs here. */
  answer(id: string, body: Buffer): void {
    const running = this.#running.get(id);
    if (!running) return;
    const { settings, failure } = this.#host;
    const fits = body.length <= settings.maxMessageBytes;
    const tooLarge = () =>
      new ServingError("INTERNAL", `An answer of ${body.length} bytes is too large to be sent`);
    running.answer = fits ? body : failure(running.sender, id, tooLarge());
    this.#reply({ to: running.sender, body: running.answer });
  }

  /** An answer whose caller has no inbox at the moment: it lost its connection, too, and takes longer to come back. */
  returned({ content, properties: { headers = {} } }: Message): void {
    const { clock, settings } = this.#host;
    const { to, returnedAt = clock.now() } = headers as {
      readonly to?: string;
      readonly returnedAt?: number;
    };
    if (to === undefined || clock.now() - returnedAt > ANSWER_KEPT_MS) return;
    this.#unsent.push({ to, body: content, returnedAt });
    clock.setTimeout(() => this.#sendUnsent(), settings.stealAfterMs);
  }

  /** A request for this node alone, from its inbox: it counts as acknowledged. */
  receivePinned(message: Message): void {
    this.#receive("pinned", undefined, message);
  }

  /** A message about a request that this node tries or tried: from its caller. */
  heard({ properties: { type, messageId: id, appId: sender, headers } }: Message): void {
    if (id === undefined || sender === undefined) return;
    const ruling = type === "RULING" ? (headers?.["ruling"] as Ruling) : undefined;
    if (ruling !== undefined && (this.#trials.ruled(id, ruling) || ruling !== "go")) return;
    // To a question, and to a "go" that comes too late to begin.
    this.#note("HERE", sender, id, { has: this.#running.has(id) });
  }

  /** @param to the caller's node ID: the request may be a copy of before it lost its connection */
  #note(type: string, to: string, messageId: string, more: Record<string, unknown>): void {
    const { nodeID, instanceID, topology } = this.#host;
    this.#channel?.publish(topology.nodeExchange, to, Buffer.alloc(0), {
      type,
      messageId,
      appId: nodeID,
      headers: { by: instanceID, ...more },
    });
  }

  #reconcile(renew = false): Promise<void> {
    const run = async () => {
      const channel = this.#channel;
      if (!channel) return;
      try {
        await this.#change(channel, renew);
      } catch (error) {
        // One that is gone meanwhile is nobody's worry any more.
        if (channel === this.#channel) throw error;
      }
    };
    this.#reconciled = this.#reconciled.then(run, run);
    return this.#reconciled;
  }

  async #change(channel: Channel, renew: boolean): Promise<void> {
    const wanted = this.#wanted();
    for (const [name, { tag, source }] of this.#consumers) {
      if (wanted.has(name) && !(renew && source !== "dead")) continue;
      this.#consumers.delete(name);
      await channel.cancel(tag);
    }
    for (const [name, subscription] of wanted) {
      if (!this.#consumers.has(name)) await this.#consume(channel, subscription);
    }
  }

  #wanted(): Map<string, Subscription> {
    const { topology, settings } = this.#host;
    const wanted: Subscription[] = [];
    if (this.#announced && !this.#draining) {
      wanted.push({ source: "dead", queue: topology.dead(), binding: [topology.deadExchange, ""] });
      for (const action of this.#actions) {
        wanted.push({ source: "quarantine", queue: topology.quarantine(action) });
        if (this.#floor !== "open" || !this.#hasRoom) continue;
        const binding = [topology.sharedExchange, topology.keysOfAction(action)] as const;
        wanted.push({ source: "shared", queue: topology.shared(action), binding });
      }
      if (this.#floor === "open") {
        const queue = topology.targeted(this.#seat, settings.stealAfterMs);
        const binding = [topology.targetedExchange, topology.keysOfSeat(this.#seat)] as const;
        wanted.push({ source: "targeted", queue, binding });
      }
    }
    return new Map(wanted.map((subscription) => [subscription.queue.name, subscription]));
  }

  async #consume(channel: Channel, { source, queue, binding }: Subscription): Promise<void> {
    await channel.assertQueue(queue.name, queue.options);
    if (binding) await channel.bindQueue(queue.name, ...binding);
    const prefetch = this.#prefetchOf(source);
    const onMessage = (message: Message | null) => {
      if (channel !== this.#channel) return;
      if (message === null) this.#host.fail(`RabbitMQ cancelled the consumer of ${queue.name}`);
      else if (source === "dead") this.#discard(channel, message);
      else this.#receive(source, channel, message);
    };
    this.#consumers.set(queue.name, {
      tag: await channel.consume(queue.name, onMessage, { prefetch }),
      source,
    });
  }

  #prefetchOf(source: Subscription["source"]): number {
    if (source === "quarantine") return groupSize(this.#prefetch, 0);
    if (source === "shared") return this.#sharePrefetch;
    return this.#prefetch;
  }

  /** Together no more than the budget: all nodes that were chosen may be gone, and this one may be needed whole. */
  get #sharePrefetch(): number {
    return Math.max(1, Math.floor(this.#prefetch / Math.max(1, this.#actions.size)));
  }

  /** Pauses and resumes the shared queues. The gap between the marks keeps it from going back and forth. */
  #lookForRoom(): void {
    const hasRoom = this.inFlight < (this.#hasRoom ? this.#prefetch : this.#prefetch / 2);
    if (hasRoom === this.#hasRoom) return;
    this.#hasRoom = hasRoom;
    void this.#reconcile().catch((error: Error) => this.#host.fail(error.message));
  }

  #discard(channel: Channel, message: Message): void {
    const { topology, settings, failure } = this.#host;
    const refuse = (sender: string, id: string, error: ServingError) =>
      this.#reply({ to: sender, body: failure(sender, id, error) });
    const { observe, deadLetterTtlMs: keepMs } = settings;
    discard({ topology, keepMs, observe, refuse }, channel, message);
  }

  /** @param channel it is to be acknowledged on; undefined if it counts as acknowledged */
  #receive(source: Source, channel: Channel | undefined, message: Message): void {
    const { settings, warnings, age } = this.#host;
    const delivery = readDelivery(source, message);
    if (!delivery) {
      warnings.about("A message on a request queue is not a request, dead-lettered", { source });
      channel?.reject(message, false);
      return;
    }
    const { id } = delivery;
    const { action, by, at, timeout } = delivery.headers;
    // RabbitMQ lets nothing wait longer in a targeted queue.
    const atMost = source === "targeted" ? settings.stealAfterMs + ON_THE_WAY_MS : undefined;
    const left = timeout - age.of(by, at, atMost);

    const running = this.#running.get(id);
    const answered = this.#answered.get(id);
    if (running) {
      void this.#join(running, delivery, channel, message);
    } else if (answered) {
      settings.observe("duplicate", action);
      this.#reply(answered);
      this.#ack(channel, message);
    } else if (delivery.late || left <= 0) {
      settings.observe("expired", action);
      this.#ack(channel, message);
    } else if (source !== "pinned" && !this.#actions.has(action)) {
      // Announced no more: to the shared queue with it, where others look.
      channel?.reject(message, source !== "targeted");
    } else {
      this.#admit(delivery, left, channel, message);
    }
  }

  #admit(delivery: Delivery, left: number, channel: Channel | undefined, message: Message): void {
    const { settings, clock } = this.#host;
    const { source, unanswered, headers } = delivery;
    if (unanswered > 0) settings.observe("redelivered", headers.action);
    else if (source === "shared") settings.observe("stolen", headers.action);
    const work = { delivery, deadline: clock.now() + left, channel, message };
    if (channel && source === "quarantine") this.#trials.add({ ...work, channel });
    else if (channel && unanswered > 0) this.#quarantine(channel, delivery, left, message);
    else if (this.#mayBegin(headers.action, "open")) void this.#run(work, false);
    else this.#held.push(work);
    this.#lookForRoom();
  }

  /** What is about the process itself is no work. */
  #mayBegin(action: string, ...floor: readonly ("open" | "emptying")[]): boolean {
    if (action.startsWith("$")) return true;
    return floor.some((each) => each === this.#floor) && this.#running.size < this.#prefetch;
  }

  /**
   * A request whose node did not answer, from the shared queue: the process ended with it, and perhaps by it. It and
   * all else that process held go where they are tried. That a request left a dead node's own queue for the shared
   * one RabbitMQ does not tell, so each has one more try among others before.
   */
  #quarantine(
    channel: Channel,
    { id, sender, headers, unanswered }: Delivery,
    left: number,
    message: Message,
  ) {
    channel.publish("", this.#host.topology.quarantine(headers.action).name, message.content, {
      messageId: id,
      appId: sender,
      type: "REQ",
      headers: { ...headers, attempts: headers.attempts + unanswered },
      expiration: Math.ceil(left),
    });
    this.#ack(channel, message);
  }

  /** Another copy of what runs here: its answer is the same. */
  async #join({ done }: Running, { headers }: Delivery, channel: Channel | undefined, message: Message) {
    this.#host.settings.observe("duplicate", headers.action);
    await done;
    this.#ack(channel, message);
  }

  #run({ delivery, deadline, channel, message }: Work, alone: boolean): Promise<void> {
    const { handle, warnings } = this.#host;
    const { id, sender } = delivery;
    const known = this.#running.get(id);
    if (known) return this.#join(known, delivery, channel, message);
    const { promise: done, resolve } = Promise.withResolvers<void>();
    const running: Running = { sender, deadline, alone, understood: false, done };
    this.#running.set(id, running);
    // Else its caller believes it with the node that was chosen, and would cancel it there.
    if (delivery.source === "shared" || delivery.source === "quarantine") this.#note("TAKEN", sender, id, {});
    const finish = () => {
      this.#running.delete(id);
      const { answer } = running;
      if (channel !== this.#channel && answer) this.#remember(id, deadline, { to: sender, body: answer });
      if (running.understood) this.#ack(channel, message);
      else if (channel === this.#channel) channel?.reject(message, false);
      resolve();
      this.#beginHeld();
      this.#lookForRoom();
    };
    handle(message.content).then(finish, (error: unknown) => {
      warnings.about("A request could not be read, dead-lettered", { error: String(error) });
      finish();
    });
    return done;
  }

  /** Nobody asks again past the deadline. */
  #remember(id: string, deadline: number, answer: Answer): void {
    const { clock } = this.#host;
    this.#answered.set(id, answer);
    clock.setTimeout(() => {
      if (this.#answered.get(id) === answer) this.#answered.delete(id);
    }, deadline - clock.now());
  }

  async #try(suspect: Suspect, alone: boolean): Promise<void> {
    const done = this.#run(suspect, alone);
    const running = this.#running.get(suspect.delivery.id);
    await done;
    if (!alone || !running?.answer) return;
    try {
      // Before anything else is in the process: a death after this is not the suspect's, and its caller must know.
      await suspect.channel.flush();
    } catch {
      const answer = { to: running.sender, body: running.answer };
      if (this.#channel === suspect.channel) this.#unsent.push(answer);
      else this.#reply(answer);
    }
  }

  #beginHeld(): void {
    while (this.#held[0] && this.#mayBegin(this.#held[0].delivery.headers.action, "open", "emptying")) {
      const work = this.#held.shift();
      if (!work) return;
      const { delivery, deadline, channel, message } = work;
      if (deadline > this.#host.clock.now()) void this.#run(work, false);
      else {
        this.#host.settings.observe("expired", delivery.headers.action);
        this.#ack(channel, message);
      }
    }
  }

  async #clear(): Promise<void> {
    this.#floor = "emptying";
    await this.#reconcile().catch((error: Error) => this.#host.fail(error.message));
    // What is held was on its way before, and would be lost with a process that a trial kills.
    this.#beginHeld();
    await this.#none(() => this.#running.size + this.#held.length);
    this.#floor = "clear";
  }

  #resume(): void {
    this.#floor = "open";
    this.#beginHeld();
    void this.#reconcile().catch((error: Error) => this.#host.fail(error.message));
  }

  #end({ delivery: { headers }, channel, message }: Suspect, why: "expired" | "drop" | "poison"): void {
    const { settings, topology } = this.#host;
    if (why === "expired") settings.observe("expired", headers.action);
    if (why === "poison") {
      settings.observe("dead-lettered", headers.action);
      if (channel === this.#channel)
        keepLetter(topology, settings.deadLetterTtlMs, channel, message, "poison");
    }
    this.#ack(channel, message);
  }

  /** Resolves when there are none of these; what runs ends by itself. */
  async #none(count: () => number): Promise<void> {
    while (count() > 0) {
      const running = Array.from(this.#running.values(), ({ done }) => done);
      if (running.length > 0) await Promise.race(running);
      else await new Promise<void>((resolve) => this.#host.clock.setTimeout(resolve, DRAIN_LOOK_MS));
    }
  }

  /** A delivery is answered on the channel it came by or not at all: with that channel gone it comes again. */
  #ack(channel: Channel | undefined, message: Message): void {
    if (channel === this.#channel) channel?.ack(message);
  }

  #reply(answer: Answer): void {
    if (this.#channel) this.#send(this.#channel, answer);
    else this.#unsent.push(answer);
  }

  #sendUnsent(): void {
    const channel = this.#channel;
    if (channel) for (const answer of this.#unsent.splice(0)) this.#send(channel, answer);
  }

  #send(channel: Channel, { to, body, returnedAt }: Answer): void {
    const headers = { to, ...(returnedAt === undefined ? {} : { returnedAt }) };
    channel.publish(this.#host.topology.nodeExchange, to, body, { type: "RES", headers, mandatory: true });
  }

  /** What cannot be delivered has come back: RabbitMQ returns it before it answers a later command. */
  async #untilReturned(): Promise<void> {
    // A channel that dies meanwhile returns nothing more.
    await this.#channel?.flush().catch(() => {});
  }
}
