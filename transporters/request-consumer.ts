import type { Channel, ConsumeMessage } from "amqplib";
import type { Complaints } from "./complaints.ts";
import { bury, type Undertaker } from "./dead-letters.ts";
import { type Delivery, judge, readDelivery, type Source } from "./delivery.ts";
import type { MessageAge } from "./message-age.ts";
import { atLeast } from "./options.ts";
import type { Queue } from "./topology.ts";

/** What the consumer needs from the transporter around it. */
export interface ConsumerHost extends Undertaker {
  readonly nodeID: string;
  readonly stealAfterMs: number;
  readonly age: MessageAge;
  readonly complaints: Complaints;
  /** Hands a request's body to Moleculer; resolves when its answer was written. */
  readonly handle: (body: Buffer) => Promise<void>;
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
  readonly deadline: number;
  readonly alone: boolean;
  understood: boolean;
  readonly done: Promise<void>;
}

interface Subscription {
  readonly source: Source | "dead";
  readonly queue: Queue;
  readonly binding?: readonly [exchange: string, key: string];
}

/**
 * The serving half of the transporter: pulls requests for the actions this node announced, decides what to do with
 * each delivery, and acknowledges it after its answer was written.
 *
 * What is consumed follows from three facts — channel, announced services, draining — by `#reconcile`, which compares
 * wanted with actual consumers; each change of a fact ends in it, one at a time.
 */
export class RequestConsumer {
  readonly #host: ConsumerHost;
  readonly #consumers = new Map<string, { readonly tag: string; readonly source: Source | "dead" }>();
  /** Requests between delivery and answer, by ID. */
  readonly #running = new Map<string, Running>();
  /** Requests whose answer went over this channel, but whose delivery came by the one before and could not be acked. */
  readonly #answered = new Set<string>();
  #channel: Channel | null = null;
  #actions: ReadonlySet<string> = new Set();
  #announced = false;
  #draining = false;
  #prefetch: number;
  #reconciled: Promise<void> = Promise.resolve();

  constructor(host: ConsumerHost, prefetch: number) {
    this.#host = host;
    this.#prefetch = prefetch;
  }

  /** Requests delivered and not yet answered. */
  get inFlight(): number {
    return this.#running.size;
  }

  /** Consumes over `channel` from now on. */
  attach(channel: Channel): Promise<void> {
    this.#channel = channel;
    this.#consumers.clear();
    return this.#reconcile();
  }

  /** The channel died, and with it the consumers. What runs goes on; RabbitMQ will deliver it again. */
  detach(): void {
    this.#channel = null;
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
    payload.timeout = Math.max(1, Math.ceil(running.deadline - performance.now()));
    if (running.alone) payload.meta = { ...payload.meta, $suspect: true };
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
    const { topology, nodeID } = this.#host;
    const wanted: Subscription[] = [];
    if (this.#announced && !this.#draining) {
      wanted.push({ source: "dead", queue: topology.dead(), binding: [topology.deadExchange, ""] });
      for (const action of this.#actions) {
        const binding = [topology.sharedExchange, topology.keysOfAction(action)] as const;
        wanted.push({ source: "quarantine", queue: topology.quarantine(action) });
        wanted.push({ source: "shared", queue: topology.shared(action), binding });
      }
      const binding = [topology.targetedExchange, topology.keysOfNode(nodeID)] as const;
      wanted.push({ source: "pinned", queue: topology.pinned(nodeID) });
      wanted.push({ source: "targeted", queue: topology.targeted(nodeID), binding });
    }
    return new Map(wanted.map((subscription) => [subscription.queue.name, subscription]));
  }

  async #consume(channel: Channel, { source, queue, binding }: Subscription): Promise<void> {
    await channel.assertQueue(queue.name, queue.options);
    if (binding) await channel.bindQueue(queue.name, ...binding);
    const prefetch = source === "quarantine" ? 1 : this.#prefetch;
    const tag = await startConsumer(channel, queue.name, prefetch, (message) => {
      if (channel !== this.#channel) return;
      if (message === null) this.#host.fail(`RabbitMQ cancelled the consumer of ${queue.name}`);
      else if (source === "dead") bury(this.#host, channel, message);
      else this.#receive(source, channel, message);
    });
    this.#consumers.set(queue.name, { tag, source });
  }

  #receive(source: Source, channel: Channel, message: ConsumeMessage): void {
    const { observe, complaints, age, stealAfterMs } = this.#host;
    const delivery = readDelivery(source, message, stealAfterMs);
    if (!delivery) {
      complaints.about("A message on a request queue is not a request, dead-lettered", { source });
      channel.nack(message, false, false);
      return;
    }
    const { action, headers } = delivery;
    const left = headers.timeout - age.of(headers.by, headers.at);

    const running = this.#running.get(delivery.id);
    if (running || this.#answered.has(delivery.id)) {
      observe("duplicate", action);
      void Promise.resolve(running?.done).then(() => this.#settle(channel, () => channel.ack(message)));
    } else if (delivery.late || left <= 0) {
      observe("expired", action);
      channel.ack(message);
    } else if (source !== "pinned" && !this.#actions.has(action)) {
      // Announced no more: to the shared queue with it, where others look.
      channel.nack(message, false, source !== "targeted");
    } else {
      this.#admit(delivery, left, channel, message);
    }
  }

  #admit(delivery: Delivery, left: number, channel: Channel, message: ConsumeMessage): void {
    const { observe, topology } = this.#host;
    const verdict = judge(delivery);
    if (delivery.redelivered) observe("redelivered", delivery.action);
    else if (delivery.source === "shared") observe("stolen", delivery.action);

    if (verdict === "dead") {
      channel.nack(message, false, false);
    } else if (verdict === "quarantine") {
      channel.sendToQueue(topology.quarantine(delivery.action).name, message.content, {
        messageId: delivery.id,
        replyTo: delivery.sender,
        type: delivery.action,
        headers: { ...delivery.headers, attempts: delivery.priorAttempts },
        expiration: Math.ceil(left),
      });
      channel.ack(message);
    } else {
      this.#run(
        delivery.id,
        { deadline: performance.now() + left, alone: verdict === "alone" },
        channel,
        message,
      );
    }
  }

  #run(
    id: string,
    request: Pick<Running, "deadline" | "alone">,
    channel: Channel,
    message: ConsumeMessage,
  ): void {
    const { promise: done, resolve } = Promise.withResolvers<void>();
    const running = { ...request, understood: false, done };
    this.#running.set(id, running);
    const finish = () => {
      this.#running.delete(id);
      if (channel !== this.#channel) this.#answered.add(id);
      this.#settle(channel, () => {
        if (running.understood) channel.ack(message);
        else channel.nack(message, false, false);
      });
      resolve();
    };
    this.#host.handle(message.content).then(finish, (error: unknown) => {
      this.#host.complaints.about("A request could not be read, dead-lettered", { error: String(error) });
      finish();
    });
  }

  /** A delivery is settled on the channel it came by or not at all: with that channel gone it comes again. */
  #settle(channel: Channel, settle: () => void): void {
    if (channel === this.#channel) settle();
  }
}

/**
 * Starts a consumer with a prefetch of its own. RabbitMQ gives a consumer the prefetch its channel has at that moment,
 * so the two commands are sent in one go, with nothing between them.
 * @returns its tag
 */
export async function startConsumer(
  channel: Channel,
  queue: string,
  prefetch: number,
  onMessage: (message: ConsumeMessage | null) => void,
): Promise<string> {
  const [, { consumerTag }] = await Promise.all([
    channel.prefetch(prefetch),
    channel.consume(queue, onMessage),
  ]);
  return consumerTag;
}
