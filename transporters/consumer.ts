import type { ServingError } from "../lib/errors.ts";
import { discard } from "./dead-letters.ts";
import { type Delivery, judge, readDelivery, type Source } from "./delivery.ts";
import type { MessageAge } from "./message-age.ts";
import { atLeast, type Settings } from "./options.ts";
import type { Channel, Clock, Message } from "./ports.ts";
import type { Queue, Seat, Topology } from "./topology.ts";
import type { Warnings } from "./warnings.ts";

/** What the consumer needs from around it. */
export interface ConsumerHost {
  readonly clock: Clock;
  readonly topology: Topology;
  readonly settings: Pick<Settings, "prefetch" | "stealAfterMs" | "observe">;
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
  /** Changes when the caller sends the request again over a new connection. */
  replyTo: string;
  readonly deadline: number;
  readonly alone: boolean;
  understood: boolean;
  /** Its answer, serialized. */
  answer?: Buffer;
  readonly done: Promise<void>;
}

interface Answer {
  readonly replyTo: string;
  readonly body: Buffer;
}

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
 * What is consumed follows from three facts — channel, announced services, draining — by `#reconcile`, which compares
 * wanted with actual consumers; each change of a fact ends in it, one at a time.
 */
export class RequestConsumer {
  readonly #host: ConsumerHost;
  readonly #consumers = new Map<string, { readonly tag: string; readonly source: Source | "dead" }>();
  /** Requests between delivery and answer, by ID. */
  readonly #running = new Map<string, Running>();
  /**
   * Answers to requests that came by an earlier channel, so that they could not be acknowledged: they come again. If
   * from a caller that lost its connection as well, the answer has to be sent once more.
   */
  readonly #answered = new Map<string, Answer>();
  /** Answers made while there was no channel. No more than this node had requests, as it gets none meanwhile. */
  #unsent: Answer[] = [];
  #channel: Channel | undefined;
  #seat: Seat = { nodeID: "", epoch: "" };
  #actions: ReadonlySet<string> = new Set();
  #announced = false;
  #draining = false;
  #prefetch: number;
  #reconciled: Promise<void> = Promise.resolve();

  constructor(host: ConsumerHost) {
    this.#host = host;
    this.#prefetch = host.settings.prefetch;
  }

  /** Requests delivered and not yet answered. */
  get inFlight(): number {
    return this.#running.size;
  }

  /** Consumes over `channel` from now on. */
  attach(channel: Channel, seat: Seat): Promise<void> {
    this.#channel = channel;
    this.#seat = seat;
    this.#consumers.clear();
    // Before anything is consumed, so that no delivery is acknowledged ahead of its answer.
    for (const answer of this.#unsent.splice(0)) this.#send(channel, answer);
    return this.#reconcile();
  }

  /** The channel died, and with it the consumers. What runs goes on; RabbitMQ will deliver it again. */
  detach(): void {
    this.#channel = undefined;
    this.#answered.clear();
    this.#consumers.clear();
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
    await this.#reconcile();
    while (this.#running.size > 0) await Promise.all(Array.from(this.#running.values(), ({ done }) => done));
  }

  /** Ends a drain. */
  reset(): void {
    this.#draining = false;
    this.#announced = false;
    this.#actions = new Set();
  }

  /**
   * Changes how many unanswered requests each consumer may hold. RabbitMQ applies a prefetch to consumers that start
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
    running.answer = body;
    this.#reply({ replyTo: running.replyTo, body });
  }

  /** A request for this node alone, from its inbox: it counts as acknowledged. */
  receivePinned(message: Message): void {
    this.#receive("pinned", undefined, message);
  }

  #reconcile(renew = false): Promise<void> {
    const run = async () => {
      const channel = this.#channel;
      if (!channel) return;
      const wanted = this.#wanted();
      for (const [name, { tag, source }] of this.#consumers) {
        if (wanted.has(name) && !(renew && (source === "targeted" || source === "shared"))) continue;
        this.#consumers.delete(name);
        await channel.cancel(tag);
      }
      for (const [name, subscription] of wanted) {
        if (!this.#consumers.has(name)) await this.#consume(channel, subscription);
      }
    };
    this.#reconciled = this.#reconciled.then(run, run);
    return this.#reconciled;
  }

  #wanted(): Map<string, Subscription> {
    const { topology, settings } = this.#host;
    const wanted: Subscription[] = [];
    if (this.#announced && !this.#draining) {
      wanted.push({ source: "dead", queue: topology.dead(), binding: [topology.deadExchange, ""] });
      for (const action of this.#actions) {
        const binding = [topology.sharedExchange, topology.keysOfAction(action)] as const;
        wanted.push({ source: "quarantine", queue: topology.quarantine(action) });
        wanted.push({ source: "shared", queue: topology.shared(action), binding });
      }
      const binding = [topology.targetedExchange, topology.keysOfSeat(this.#seat)] as const;
      wanted.push({
        source: "targeted",
        queue: topology.targeted(this.#seat, settings.stealAfterMs),
        binding,
      });
    }
    return new Map(wanted.map((subscription) => [subscription.queue.name, subscription]));
  }

  async #consume(channel: Channel, { source, queue, binding }: Subscription): Promise<void> {
    await channel.assertQueue(queue.name, queue.options);
    if (binding) await channel.bindQueue(queue.name, ...binding);
    const prefetch = source === "quarantine" ? 1 : this.#prefetch;
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

  #discard(channel: Channel, message: Message): void {
    const { topology, settings, failure } = this.#host;
    const refuse = (sender: string, replyTo: string, id: string, error: ServingError) =>
      this.#reply({ replyTo, body: failure(sender, id, error) });
    discard({ topology, observe: settings.observe, refuse }, channel, message);
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
    const { id, replyTo } = delivery;
    const { action, by, at, timeout } = delivery.headers;
    const left = timeout - age.of(by, at);

    const running = this.#running.get(id);
    const answered = this.#answered.get(id);
    if (running) {
      settings.observe("duplicate", action);
      running.replyTo = replyTo;
      void running.done.then(() => this.#ack(channel, message));
    } else if (answered) {
      settings.observe("duplicate", action);
      if (answered.replyTo !== replyTo) this.#reply({ replyTo, body: answered.body });
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
    const { topology, settings, clock } = this.#host;
    const { id, sender, replyTo, headers, priorAttempts } = delivery;
    const verdict = judge(delivery);
    if (delivery.redelivered) settings.observe("redelivered", headers.action);
    else if (delivery.source === "shared") settings.observe("stolen", headers.action);

    if (verdict === "dead") {
      channel?.reject(message, false);
    } else if (verdict === "quarantine") {
      channel?.publish("", topology.quarantine(headers.action).name, message.content, {
        messageId: id,
        replyTo,
        appId: sender,
        type: "REQ",
        headers: { ...headers, attempts: priorAttempts },
        expiration: Math.ceil(left),
      });
      this.#ack(channel, message);
    } else {
      this.#run(delivery, clock.now() + left, verdict === "alone", channel, message);
    }
  }

  #run(
    { id, replyTo }: Delivery,
    deadline: number,
    alone: boolean,
    channel: Channel | undefined,
    message: Message,
  ): void {
    const { handle, warnings } = this.#host;
    const { promise: done, resolve } = Promise.withResolvers<void>();
    const running: Running = { replyTo, deadline, alone, understood: false, done };
    this.#running.set(id, running);
    const finish = () => {
      this.#running.delete(id);
      const { replyTo, answer } = running;
      if (channel !== this.#channel && answer) this.#answered.set(id, { replyTo, body: answer });
      if (running.understood) this.#ack(channel, message);
      else if (channel === this.#channel) channel?.reject(message, false);
      resolve();
    };
    handle(message.content).then(finish, (error: unknown) => {
      warnings.about("A request could not be read, dead-lettered", { error: String(error) });
      finish();
    });
  }

  /** A delivery is answered on the channel it came by or not at all: with that channel gone it comes again. */
  #ack(channel: Channel | undefined, message: Message): void {
    if (channel === this.#channel) channel?.ack(message);
  }

  #reply(answer: Answer): void {
    if (this.#channel) this.#send(this.#channel, answer);
    else this.#unsent.push(answer);
  }

  #send(channel: Channel, { replyTo, body }: Answer): void {
    channel.publish("", replyTo, body, { type: "RES" });
  }
}
