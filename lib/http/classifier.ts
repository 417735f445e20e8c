import { randomUUID } from "node:crypto";
import type { Logger, ServiceBroker } from "moleculer";
import { CancelledError, DeadlineExceededError, errorCode, ModelNotFoundError, toWire } from "../errors.ts";
import { listModels } from "../models/catalog.ts";
import { CANCEL_EVENT, type CancelEvent, type CancelMeta } from "../request/cancellation.ts";
import { Retry } from "../request/retry.ts";
import { healthOf } from "../telemetry/health.ts";
import { count } from "../telemetry/metrics.ts";
import type { ClassifyParams, ClassifyResult, ImageAnswer } from "../types.ts";
import { note } from "./access.ts";
import { Admission } from "./admission.ts";
import { type Answer, classifyAnswer } from "./answer.ts";
import { bodyKind, readImages } from "./body.ts";
import { Clients } from "./client.ts";
import type { Exchange } from "./exchange.ts";
import type { GatewayOptions } from "./options.ts";
import { contentLengthOf, noStoreOf, timeoutOf } from "./request.ts";
import { within } from "./within.ts";

const ACTION = "dispatcher.classify";

/** Brings the images of a request to the dispatcher, inside the request's deadline and the gateway's bounds. */
export class Classifier {
  readonly #broker: ServiceBroker;
  readonly #logger: Logger;
  readonly #options: GatewayOptions;
  readonly #admission: Admission;
  readonly #clients: Clients;
  readonly #retry = new Retry();

  constructor(broker: ServiceBroker, logger: Logger, options: GatewayOptions) {
    this.#broker = broker;
    this.#logger = logger;
    this.#options = options;
    this.#admission = new Admission(options);
    this.#clients = new Clients(options.trustedProxies);
  }

  /**
   * @param models undefined: every image model
   * @throws ServingError for what is wrong with the request as a whole
   */
  async classify(exchange: Exchange, models: readonly string[] | undefined): Promise<Answer> {
    const { req, res, requestId, startedAt } = exchange;
    const { maxImageBytes, maxImages, bodyTimeoutMs, minBodyRate } = this.#options;
    note(res, { models: models ?? ["*"] });
    const timeout = timeoutOf(req.headers, this.#options);
    // A deadline that the client named counts from its first byte, ours from its last: an upload may be slow.
    const named = req.headers["x-request-timeout-ms"] !== undefined;
    const kind = bodyKind(req.headers, this.#options);
    if (models) assertKnown(this.#broker, models);
    const lease = this.#admission.enter({
      announced: contentLengthOf(req.headers),
      models,
      client: this.#clients.ofRequest(req),
    });
    try {
      if (req.headers.expect) res.writeContinue();
      const timeoutMs = Math.min(bodyTimeoutMs, named ? startedAt + timeout - performance.now() : Infinity);
      const limits = { maxImageBytes, maxImages, minBodyRate, timeoutMs };
      const images = await readImages(req, kind, limits, lease.hold);
      lease.takePlace();
      const parseMs = performance.now() - startedAt;
      const rest = { ...(models ? { models } : {}), ...(noStoreOf(req.headers) ? { noStore: true } : {}) };
      const deadline = timeout + (named ? startedAt : performance.now());
      const items = await this.#askForAll(images, rest, exchange, deadline);
      return classifyAnswer(items, requestId, { parseMs, totalMs: performance.now() - startedAt });
    } finally {
      lease.release();
    }
  }

  /**
   * Each image is a call of its own: they spread over the dispatchers, one that fails takes no other with it, and no
   * message outgrows what a broker takes (RabbitMQ 4: 16 MiB).
   */
  async #askForAll(
    images: readonly Uint8Array[],
    rest: Omit<ClassifyParams, "images">,
    { req, requestId, hungUp }: Exchange,
    deadline: number,
  ): Promise<readonly ImageAnswer[]> {
    const cancelId = randomUUID();
    Object.assign(req.$ctx.meta, { cancelId } satisfies CancelMeta);
    const cancel = () => this.#broker.broadcast(CANCEL_EVENT, { cancelId } satisfies CancelEvent);
    hungUp.addEventListener("abort", cancel, { once: true });
    try {
      return await Promise.all(
        images.map((image) =>
          within(deadline - performance.now(), hungUp, () =>
            this.#retry.run(
              () => ask(req.$ctx, { ...rest, images: [image] }, deadline, hungUp),
              () => count(this.#broker, "retry.attempts.total", { action: ACTION }),
            ),
          ).catch((error: unknown) => this.#failure(error, requestId)),
        ),
      );
    } finally {
      hungUp.removeEventListener("abort", cancel);
    }
  }

  #failure(error: unknown, requestId: string): ImageAnswer {
    if (error instanceof CancelledError) throw error;
    if (errorCode(error) === "INTERNAL") this.#logger.error("Classification failed", { requestId }, error);
    return { error: toWire(error) };
  }
}

/**
 * Refuses names of no model before their bodies cost anything. A gateway that has only just started may not have heard
 * of all models yet and leaves it to the dispatcher.
 *
 * @throws ModelNotFoundError
 */
function assertKnown(broker: ServiceBroker, models: readonly string[]): void {
  if (healthOf(broker).state === "starting") return;
  const known = new Set(listModels(broker).map(({ name }) => name));
  const unknown = models.find((name) => !known.has(name));
  if (unknown !== undefined) throw new ModelNotFoundError(unknown);
}

async function ask(
  ctx: Exchange["req"]["$ctx"],
  params: ClassifyParams,
  deadline: number,
  hungUp: AbortSignal,
): Promise<ImageAnswer> {
  if (hungUp.aborted) throw new CancelledError();
  const timeout = Math.floor(deadline - performance.now());
  if (timeout <= 0) throw new DeadlineExceededError("gateway");
  const { items } = await ctx.call<ClassifyResult, ClassifyParams>(ACTION, params, { timeout });
  const [item] = items;
  if (!item) throw new TypeError(`Expected one item from ${ACTION} but received none`);
  return item;
}
