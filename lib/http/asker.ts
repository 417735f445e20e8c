import { randomUUID } from "node:crypto";
import type { Logger, ServiceBroker } from "moleculer";
import { ASK, call } from "../actions.ts";
import { CancelledError, errorCode, ModelNotFoundError, ServingError, toWire } from "../errors.ts";
import type { Kind } from "../kinds/kind.ts";
import { type Catalog, catalogOf, type KnownModel } from "../models/catalog.ts";
import { type CancelMeta, cancel } from "../request/cancellation.ts";
import { Retry } from "../request/retry.ts";
import { createScope, type Scope, timeLeft, within } from "../request/scope.ts";
import { healthOf } from "../telemetry/health.ts";
import { count } from "../telemetry/metrics.ts";
import type { AskParams, ItemAnswer } from "../types.ts";
import { note } from "./access.ts";
import { Admission } from "./admission.ts";
import { type Answer, resultAnswer } from "./answer.ts";
import { type BodyLimits, bodyForm, readInputs } from "./body.ts";
import { Clients } from "./client.ts";
import type { Exchange } from "./exchange.ts";
import { kindOfBody } from "./kind.ts";
import type { GatewayOptions } from "./options.ts";
import { contentLengthOf, noStoreOf, requestKeyOf, timeoutOf, versionOf } from "./request.ts";

/** Brings the inputs of a request to the dispatcher, inside the request's deadline and the gateway's bounds. */
export class Asker {
  readonly #broker: ServiceBroker;
  readonly #logger: Logger;
  readonly #options: GatewayOptions;
  readonly #admission: Admission;
  readonly #clients: Clients;
  readonly #catalog: Catalog;
  readonly #retry = new Retry();

  constructor(broker: ServiceBroker, logger: Logger, options: GatewayOptions) {
    this.#broker = broker;
    this.#logger = logger;
    this.#options = options;
    this.#admission = new Admission(options);
    this.#clients = new Clients(options.trustedProxies);
    this.#catalog = catalogOf(broker);
  }

  /**
   * @param models undefined: every model that takes this kind of body
   * @param version a number or a label; undefined: the one in the address, if there is one
   * @throws ServingError for what is wrong with the request as a whole
   */
  async ask(
    exchange: Exchange,
    models: readonly string[] | undefined,
    version = versionOf(exchange.req.originalUrl),
  ): Promise<Answer> {
    const { req, res, requestId, startedAt, hungUp } = exchange;
    const key = requestKeyOf(req.headers);
    note(res, { models: models ?? ["*"] });
    const timeout = timeoutOf(req.headers, this.#options);
    // A deadline that the client named counts from its first byte, ours from its last: an upload may be slow.
    const named = req.headers["x-request-timeout-ms"] !== undefined;
    const kind = kindOfBody(req.headers, this.#named(models), this.#catalog.list());
    const limits = this.#limitsOf(kind, named ? startedAt + timeout - performance.now() : Infinity);
    const form = bodyForm(req.headers, kind, limits);
    const lease = this.#admission.enter({
      announced: contentLengthOf(req.headers),
      models,
      client: this.#clients.ofRequest(req),
    });
    try {
      if (req.headers.expect) res.writeContinue();
      const inputs = await readInputs(req, form, kind, limits, lease.hold);
      lease.takePlace();
      const parseMs = performance.now() - startedAt;
      const deadline = timeout + (named ? startedAt : performance.now());
      const scope = createScope({ deadline, signal: hungUp, requestId });
      const items = await this.#askForEach(exchange, scope, {
        kind: kind.name,
        inputs,
        ...(models ? { models } : {}),
        ...(noStoreOf(req.headers) ? { noStore: true } : {}),
        ...(version === undefined ? {} : { version }),
        ...(key === undefined ? {} : { key }),
      });
      const timing = { parseMs, totalMs: performance.now() - startedAt };
      return resultAnswer(items, { noun: kind.noun, requestId, timing });
    } finally {
      lease.release();
    }
  }

  /**
   * Each input is a call of its own: they spread over the dispatchers, one that fails takes no other with it, and no
   * message outgrows what a broker takes (RabbitMQ 4: 16 MiB).
   */
  async #askForEach(
    { req }: Exchange,
    scope: Scope,
    { inputs, ...rest }: AskParams,
  ): Promise<readonly ItemAnswer[]> {
    const cancelId = randomUUID();
    Object.assign(req.$ctx.meta, { cancelId } satisfies CancelMeta);
    const giveUp = () => cancel(this.#broker, cancelId);
    scope.signal.addEventListener("abort", giveUp, { once: true });
    try {
      return await Promise.all(
        inputs.map((input) =>
          within(scope, "gateway", () =>
            this.#retry.run(
              scope,
              () => askOne(req.$ctx, { ...rest, inputs: [input] }, scope),
              () => count(this.#broker, "retry.attempts.total", { action: ASK }),
            ),
          ).catch((error: unknown) => this.#failure(error, scope)),
        ),
      );
    } finally {
      scope.signal.removeEventListener("abort", giveUp);
    }
  }

  #failure(error: unknown, { requestId }: Scope): ItemAnswer {
    if (error instanceof CancelledError) throw error;
    if (errorCode(error) === "INTERNAL") this.#logger.error("Asking failed", { requestId }, error);
    return { error: toWire(error) };
  }

  /**
   * What is known of the models that are asked for by name. Names of no model are refused before their bodies cost
   * anything; but a gateway that has only just started may not have heard of all models yet, and leaves it to the
   * dispatcher.
   *
   * @throws ModelNotFoundError
   */
  #named(models: readonly string[] = []): readonly KnownModel[] {
    return models.flatMap((name) => {
      const known = this.#catalog.get(name);
      if (!known && healthOf(this.#broker).state !== "starting") throw new ModelNotFoundError(name);
      return known ?? [];
    });
  }

  #limitsOf(kind: Kind, timeLeftMs: number): BodyLimits {
    const { maxImages, bodyTimeoutMs, minBodyRate, [kind.limit]: maxBytes } = this.#options;
    return { maxBytes, maxInputs: maxImages, minBodyRate, timeoutMs: Math.min(bodyTimeoutMs, timeLeftMs) };
  }
}

async function askOne(ctx: Exchange["req"]["$ctx"], params: AskParams, scope: Scope): Promise<ItemAnswer> {
  const timeout = Math.max(1, Math.floor(timeLeft(scope)));
  const { items } = await call(ctx, ASK, params, { timeout }).catch((error: unknown) => {
    throw isNobody(error) ? new ServingError("MODEL_UNAVAILABLE", "No dispatcher is up") : error;
  });
  const [item] = items;
  if (!item) throw new TypeError(`Expected one item from ${ASK} but received none`);
  return item;
}

/** Moleculer's word for an action that no node has. */
function isNobody(error: unknown): boolean {
  const { type } = (error ?? {}) as { readonly type?: unknown };
  return type === "SERVICE_NOT_FOUND" || type === "SERVICE_NOT_AVAILABLE";
}
