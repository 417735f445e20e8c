import { LONGEST_DEAD_LETTER_MS, LONGEST_DEADLINE_MS } from "./topology.ts";

/** What the transporter reports, per action, for the metrics. */
export type RequestEvent =
  /** Taken from the shared queue: the chosen node was dead, gone or had its hands full. */
  | "stolen"
  /** Delivered again after a delivery that was never acknowledged: its node died or lost its connection. */
  | "redelivered"
  /** Given up: it kills the process that runs it, no node can read it, or RabbitMQ delivered it too often. */
  | "dead-lettered"
  /** Dropped by a node or by RabbitMQ because its deadline had passed. */
  | "expired"
  /** Sent once more by its caller: after a reconnect, or because RabbitMQ had no queue for it. */
  | "resent"
  /** Delivered while the same request was being worked on here; not run twice. */
  | "duplicate";

export interface AmqpTransporterOptions {
  /**
   * RabbitMQ's addresses, `amqp://` or `amqps://`, with credentials and virtual host; several are tried in turn.
   * A string may hold several, separated by `;`.
   */
  url: string | readonly string[];
  /**
   * Requests this node runs at once, at least `minPrefetch`. A request is acknowledged after its answer, so a batch can
   * never be larger than this.
   * @default 32
   */
  prefetch?: number;
  /**
   * Least `prefetch` that makes sense on this node: twice its largest batch, so that the next batch fills while one
   * computes. A smaller `prefetch` is refused.
   * @default 1
   */
  minPrefetch?: number;
  /**
   * Milliseconds a request waits for the node the strategy chose before any other node may take it, at least 1.
   * @default 500
   */
  stealAfterMs?: number;
  /**
   * Milliseconds that a request of this node may take, whatever its own deadline says, and the request timeout of a
   * broker that has none. At most `LONGEST_DEADLINE_MS`, which RabbitMQ keeps nothing beyond.
   * @default 60_000
   */
  maxDeadlineMs?: number;
  /**
   * Bytes of requests this node keeps until they are answered, to send them again after a reconnect, at least 1. A
   * request above it is refused with QUEUE_FULL.
   * @default 268_435_456
   */
  maxPendingBytes?: number;
  /**
   * AMQP heartbeat in seconds, at least 1. A node that is stopped or cut off loses its connection, and with it the
   * requests it holds and those that shared queues still give it, after two to three of these: with more than 2 that
   * is too late for a deadline of 10 s. So does one whose event loop stands still for as long; the price is that what
   * it holds is computed twice. A `heartbeat` in the URL wins.
   * @default 2
   */
  heartbeatSeconds?: number;
  /**
   * Milliseconds that dead letters are kept for people to look at, with what was in them, at least 1.
   * @default 86_400_000 (a day)
   */
  deadLetterTtlMs?: number;
  /**
   * Bytes of the largest message that RabbitMQ takes, at least 1: its `max_message_size`. A larger request is refused
   * with PAYLOAD_TOO_LARGE before it is sent.
   * @default 16_777_216, RabbitMQ's own since 4.0
   */
  maxMessageBytes?: number;
  /** More options of Node's `net.connect` or `tls.connect`: `ca`, `cert`, `key`, … */
  socketOptions?: Readonly<Record<string, unknown>>;
  /**
   * Whether this node wants to hear of the others: their services, load and end. One that calls nobody does not, and
   * what every node tells every node grows with their square. Asked at each connection, when the services are there.
   * @default it does
   */
  hearsOthers?: () => boolean;
  /** Called on every event worth counting. Must not throw. */
  observe?: (event: RequestEvent, action: string) => void;
}

export type Settings = Required<Omit<AmqpTransporterOptions, "url" | "minPrefetch">> & {
  readonly urls: readonly string[];
};

/**
 * Options with their defaults.
 * @throws TypeError that names the option, what it must be and what it was, without its password
 */
export function settings(options: AmqpTransporterOptions): Settings {
  const minPrefetch = atLeast("minPrefetch", options.minPrefetch ?? 1, 1);
  return {
    urls: addresses(options.url),
    prefetch: atLeast("prefetch", options.prefetch ?? Math.max(32, minPrefetch), minPrefetch),
    stealAfterMs: within("stealAfterMs", options.stealAfterMs ?? 500, 1, LONGEST_DEADLINE_MS),
    maxDeadlineMs: within("maxDeadlineMs", options.maxDeadlineMs ?? 60_000, 1, LONGEST_DEADLINE_MS),
    maxPendingBytes: atLeast("maxPendingBytes", options.maxPendingBytes ?? 268_435_456, 1),
    heartbeatSeconds: atLeast("heartbeatSeconds", options.heartbeatSeconds ?? 2, 1),
    deadLetterTtlMs: within(
      "deadLetterTtlMs",
      options.deadLetterTtlMs ?? 24 * 3_600_000,
      1,
      LONGEST_DEAD_LETTER_MS,
    ),
    maxMessageBytes: atLeast("maxMessageBytes", options.maxMessageBytes ?? 16_777_216, 1),
    socketOptions: options.socketOptions ?? {},
    hearsOthers: options.hearsOthers ?? (() => true),
    observe: options.observe ?? (() => {}),
  };
}

/** @throws TypeError unless `value` is an integer of at least `min` */
export function atLeast(name: string, value: unknown, min: number): number {
  if (Number.isInteger(value) && (value as number) >= min) return value as number;
  throw new TypeError(
    `Expected an integer of at least ${min} for ${name} but received ${String(value)} of type ${typeof value}`,
  );
}

/** @throws TypeError unless `value` is an integer from `min` to `max` */
function within(name: string, value: unknown, min: number, max: number): number {
  if (atLeast(name, value, min) <= max) return value as number;
  throw new TypeError(
    `Expected an integer of at most ${max} for ${name} but received ${String(value)} of type ${typeof value}`,
  );
}

function addresses(url: string | readonly string[]): string[] {
  const urls = (typeof url === "string" ? url.split(";") : [...(url ?? [])]).filter(Boolean);
  const bad =
    urls.length === 0 ? "none" : urls.find((each) => !/^amqps?:$/.test(parse(each)?.protocol ?? ""));
  if (bad === undefined) return urls;
  throw new TypeError(
    `Expected amqp:// or amqps:// addresses for url but received ${redact(bad)} of type ${typeof url}`,
  );
}

/** An address as it may stand in a log: without credentials and options. */
export function redact(url: string): string {
  const parsed = parse(url);
  return parsed ? `${parsed.protocol}//${parsed.host}${parsed.pathname}` : "an unreadable one";
}

function parse(url: string): URL | undefined {
  return URL.canParse(url) ? new URL(url) : undefined;
}
