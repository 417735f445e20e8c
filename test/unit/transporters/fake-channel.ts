import type { Channel, ConsumeOptions, Message } from "../../../transporters/ports.ts";

export interface Published {
  readonly exchange: string;
  readonly key: string;
  readonly content: Buffer;
  readonly options: Parameters<Channel["publish"]>[3];
}

/** A channel that records what is done on it. */
export class FakeChannel implements Channel {
  readonly published: Published[] = [];
  /** `ack <id>`, `reject <id>` or `requeue <id>`. */
  readonly settled: string[] = [];
  readonly declared: string[] = [];
  /** Consumers that were not cancelled, by queue. */
  readonly consumers = new Map<string, ConsumeOptions & { onMessage(message: Message | null): void }>();
  /** What `publish` answers. */
  room = true;
  /** Settles every `cancel`; set it to hold them up. */
  cancelled: Promise<void> = Promise.resolve();
  #tag = 0;

  async assertExchange(): Promise<void> {}
  async assertQueue(name: string): Promise<void> {
    this.declared.push(name);
  }
  async bindQueue(): Promise<void> {}

  async consume(queue: string, onMessage: (message: Message | null) => void, options: ConsumeOptions) {
    this.consumers.set(queue, { ...options, onMessage });
    return queue;
  }

  async cancel(tag: string): Promise<void> {
    await this.cancelled;
    this.consumers.delete(tag);
  }

  publish(...[exchange, key, content, options]: Parameters<Channel["publish"]>): boolean {
    this.published.push({ exchange, key, content, options });
    return this.room;
  }

  ack({ properties }: Message): void {
    this.settled.push(`ack ${properties.messageId}`);
  }

  reject({ properties }: Message, requeue: boolean): void {
    this.settled.push(`${requeue ? "requeue" : "reject"} ${properties.messageId}`);
  }

  async get(): Promise<undefined> {}
  async purgeQueue(): Promise<number> {
    return 0;
  }
  async flush(): Promise<void> {}
  async close(): Promise<void> {}

  /** Delivers a message to the consumer of `queue`; false if there is none. */
  deliver(queue: string, properties: Message["properties"], redelivered = false): boolean {
    const consumer = this.consumers.get(queue);
    const content = Buffer.from(properties.messageId ?? "");
    consumer?.onMessage({ content, fields: { deliveryTag: ++this.#tag, redelivered }, properties });
    return consumer !== undefined;
  }
}
