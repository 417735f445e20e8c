import { createHash } from "node:crypto";
import { type Span, type Tracer, TracerExporters } from "moleculer";

export interface OtlpOptions {
  /** Where an OpenTelemetry collector listens for OTLP over HTTP: `http://host:4318`; `/v1/traces` is added. */
  readonly endpoint: string;
  /**
   * How long spans wait for company, milliseconds.
   * @default 1000
   */
  readonly flushMs?: number;
}

/** Spans in one message: half a megabyte or so. */
const MAX_BATCH = 512;
/** Spans that are kept while the collector does not answer; more are dropped. */
const MAX_KEPT = 4096;
const TIMEOUT_MS = 5_000;
/** Time for what is left when the process ends. */
const LAST_TIMEOUT_MS = 1_000;

/** Of the protocol's enumerations (opentelemetry-proto, trace.proto). */
const KIND = { internal: 1, server: 2 };
const STATUS = { unset: 0, error: 2 };

interface OtlpSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly attributes: readonly Attribute[];
  readonly status: { readonly code: number; readonly message?: string };
}

interface Waiting {
  readonly service: string;
  readonly span: OtlpSpan;
}

interface Attribute {
  readonly key: string;
  readonly value: Readonly<Record<string, unknown>>;
}

/**
 * Sends Moleculer's spans to an OpenTelemetry collector, as JSON over HTTP
 * (https://opentelemetry.io/docs/specs/otlp/#otlphttp). OpenTelemetry's own exporter would bring 27 MB of packages, a
 * quarter of the image, for what is one POST; keeping spans safe and passing them on is the collector's work. Nothing
 * here ever delays a request or fails one.
 */
export class OtlpExporter extends TracerExporters.Base {
  readonly #url: string;
  readonly #flushMs: number;
  readonly #waiting: Waiting[] = [];
  #timer: NodeJS.Timeout | undefined;
  #sending: Promise<void> | undefined;
  #dropped = 0;
  #down = false;

  constructor({ endpoint, flushMs = 1_000 }: OtlpOptions) {
    super({});
    this.#url = `${endpoint.replace(/\/+$/, "")}/v1/traces`;
    this.#flushMs = flushMs;
  }

  override init(tracer: Tracer): void {
    super.init(tracer);
    this.#timer = setInterval(() => this.#flush(TIMEOUT_MS), this.#flushMs).unref();
  }

  override spanStarted(): void {}

  override spanFinished(span: Span): void {
    if (this.#waiting.length >= MAX_KEPT) {
      this.#dropped += 1;
      return;
    }
    this.#waiting.push({ service: span.service?.name ?? "", span: toOtlp(span) });
    // One that does not answer is asked again by the clock.
    if (this.#waiting.length >= MAX_BATCH && !this.#down) this.#flush(TIMEOUT_MS);
  }

  /** Sends what is left; what is not taken now is lost. */
  override async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#sending;
    await this.#flush(LAST_TIMEOUT_MS);
  }

  /** One at a time. */
  #flush(timeoutMs: number): Promise<void> {
    if (this.#waiting.length > 0 && !this.#sending) {
      this.#sending = this.#send(timeoutMs).finally(() => {
        this.#sending = undefined;
      });
    }
    return this.#sending ?? Promise.resolve();
  }

  /** All that waits, a message after the other; what could not be sent waits on, within the bound. */
  async #send(timeoutMs: number): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, MAX_BATCH);
      try {
        await this.#post(batch, timeoutMs);
      } catch (error) {
        this.#waiting.unshift(...batch);
        this.#dropped += this.#waiting.splice(MAX_KEPT).length;
        if (!this.#down) {
          this.logger.warn("Traces cannot be sent", { url: this.#url, reason: reasonOf(error) });
        }
        this.#down = true;
        return;
      }
    }
  }

  /** @throws what may pass: no connection, no answer in time, overload */
  async #post(batch: readonly Waiting[], timeoutMs: number): Promise<void> {
    const response = await fetch(this.#url, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(this.#message(batch)),
      signal: AbortSignal.timeout(timeoutMs),
    });
    await response.body?.cancel();
    if (response.status === 429 || response.status >= 500) throw new Error(`status ${response.status}`);
    // What it refuses once it refuses again: dropped.
    if (!response.ok) {
      this.logger.warn("The collector refuses traces", { url: this.#url, status: response.status });
    }
    if (this.#down) this.logger.info("Traces are sent again", { dropped: this.#dropped });
    this.#down = false;
    this.#dropped = 0;
  }

  #message(batch: readonly Waiting[]) {
    const byService = Map.groupBy(batch, ({ service }) => service);
    return {
      resourceSpans: [...byService].map(([service, spans]) => ({
        resource: {
          attributes: attributes({
            "service.name": service,
            "service.namespace": this.broker.namespace,
            "service.instance.id": this.broker.nodeID,
          }),
        },
        scopeSpans: [{ scope: { name: "dl-lambda" }, spans: spans.map(({ span }) => span) }],
      })),
    };
  }
}

/** What of a context its tags are made from. */
export interface TracedContext {
  readonly meta: { readonly traceparent?: string };
}

/** What spans are about, for Moleculer's `tracing.tags.action`; never parameters: they hold images. */
export function actionTags(ctx: TracedContext, response?: unknown): Record<string, unknown> {
  const [item] = (response as { items?: readonly Partial<ItemTags>[] } | undefined)?.items ?? [];
  const { traceparent } = ctx.meta;
  return {
    ...(traceparent === undefined ? {} : { traceparent }),
    ...(item?.timing?.queueMs === undefined
      ? {}
      : {
          "inference.queue_ms": item.timing.queueMs,
          "inference.compute_ms": item.timing.computeMs,
          "inference.batch_size": item.batchSize,
        }),
  };
}

interface ItemTags {
  readonly timing: { readonly queueMs?: number; readonly computeMs?: number };
  readonly batchSize: number;
}

/** A W3C trace context (https://www.w3.org/TR/trace-context/) as parts; `undefined` if it is none. */
export function parseTraceparent(traceparent: unknown) {
  const [, traceId, spanId, flags] =
    /^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/.exec(String(traceparent)) ?? [];
  if (!traceId || !spanId || !flags) return undefined;
  return { traceId, spanId, sampled: (Number.parseInt(flags, 16) & 1) === 1 };
}

function toOtlp(span: Span): OtlpSpan {
  const {
    traceparent,
    action,
    remoteCall,
    nodeID: _,
    ...tags
  } = span.tags as Record<string, unknown> & {
    readonly action?: { readonly name?: string };
  };
  const remote = parseTraceparent(traceparent);
  const parentSpanId = span.parentID ? spanIdOf(span.parentID) : undefined;
  const error = span.error as unknown;
  const start = span.startTime ?? 0;
  return {
    // Every process makes the same of a request's id: the trace needs no other header between them.
    traceId: remote?.traceId ?? digest(span.traceID, 16),
    spanId: spanIdOf(span.id),
    ...(parentSpanId ? { parentSpanId } : {}),
    name: action?.name ?? span.name,
    kind:
      remoteCall || parentSpanId === undefined || parentSpanId === remote?.spanId
        ? KIND.server
        : KIND.internal,
    startTimeUnixNano: nanoseconds(start),
    endTimeUnixNano: nanoseconds(start + (span.duration ?? 0)),
    attributes: attributes(flat(tags)),
    status: error ? { code: STATUS.error, message: reasonOf(error) } : { code: STATUS.unset },
  };
}

/** Moleculer's ids are UUIDs; one that came from outside is a span's id already. */
function spanIdOf(id: string): string {
  return /^[0-9a-f]{16}$/.test(id) ? id : digest(id, 8);
}

/** A few bytes for a text of any length, in hex; never all zeros, which the standard forbids, but by a miracle. */
function digest(text: string, bytes: number): string {
  return createHash("sha256")
    .update(text)
    .digest("hex")
    .slice(0, 2 * bytes);
}

function nanoseconds(ms: number): string {
  return String(BigInt(Math.round(ms * 1e3)) * 1000n);
}

/** `{ options: { timeout: 5 } }` as `{ "options.timeout": 5 }`. */
function flat(tags: Readonly<Record<string, unknown>>, prefix = ""): Record<string, unknown> {
  return Object.assign(
    {},
    ...Object.entries(tags).map(([key, value]) =>
      typeof value === "object" && value !== null
        ? flat(value as Record<string, unknown>, `${prefix}${key}.`)
        : { [prefix + key]: value },
    ),
  ) as Record<string, unknown>;
}

function attributes(tags: Readonly<Record<string, unknown>>): readonly Attribute[] {
  return Object.entries(tags).flatMap(([key, tag]): Attribute[] => {
    const value = wireValue(tag);
    return value ? [{ key, value }] : [];
  });
}

function wireValue(value: unknown): Attribute["value"] | undefined {
  if (typeof value === "string") return { stringValue: value };
  if (typeof value === "boolean") return { boolValue: value };
  if (typeof value !== "number") return undefined;
  return Number.isInteger(value) ? { intValue: String(value) } : { doubleValue: value };
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? error.cause.message : error.message;
}
