import type { IncomingMessage, ServerResponse } from "node:http";
import type { Logger, ServiceBroker } from "moleculer";
import type { AdminKey } from "../env.ts";
import { errorCode, ModelNotFoundError, ServingError } from "../errors.ts";
import { catalogOf, describeModel } from "../models/catalog.ts";
import { healthResponse, type Probe } from "../telemetry/health.ts";
import { count, observe } from "../telemetry/metrics.ts";
import { parseTraceparent } from "../telemetry/otlp.ts";
import { METRICS_CONTENT_TYPE, scrape } from "../telemetry/prometheus.ts";
import { type Access, note } from "./access.ts";
import { AdminDoor } from "./admin.ts";
import { type Answer, errorAnswer } from "./answer.ts";
import { Asker } from "./asker.ts";
import type { Exchange, Handler, RoutedRequest } from "./exchange.ts";
import type { GatewayOptions } from "./options.ts";
import { modelName, modelsOf, requestIdOf, traceparentOf, versionName } from "./request.ts";
import { REQUEST_ID, SECURITY_HEADERS, send } from "./send.ts";

/** The addresses, as moleculer-web's aliases spell them. */
const ROUTES = [
  "api/admin/:op",
  "api/classify",
  "api/models",
  "api/models/:model",
  "api/models/:model/classify",
  "api/models/:model/predict",
  "api/models/:model/versions/:version/classify",
  "api/models/:model/versions/:version/predict",
  "health/live",
  "health/ready",
  "metrics",
] as const;

type Route = (typeof ROUTES)[number];
type Methods = Readonly<Partial<Record<"GET" | "POST", Handler>>>;

/** Every address of the API and what answers it; the only place where a failure becomes an HTTP answer. */
export class Gateway {
  readonly #broker: ServiceBroker;
  readonly #logger: Logger;
  /** Undefined: there is nothing at this address. */
  readonly #routes: Readonly<Record<Route, Methods | undefined>>;

  constructor(
    broker: ServiceBroker,
    logger: Logger,
    options: GatewayOptions,
    keys: readonly AdminKey[] = [],
  ) {
    this.#broker = broker;
    this.#logger = logger;
    const asker = new Asker(broker, logger, options);
    const askOne: Handler = (exchange) => asker.ask(exchange, [modelName(modelIn(exchange.req))]);
    const askVersion: Handler = (exchange) => {
      const version = versionName(exchange.req.$params.params["version"] ?? "");
      return asker.ask(exchange, [modelName(modelIn(exchange.req))], version);
    };
    const health =
      (probe: Probe): Handler =>
      ({ requestId }) => {
        const { status, body } = healthResponse(broker, probe);
        return { status, body: { requestId, ...body } };
      };
    const admin = new AdminDoor(keys, options);
    this.#routes = {
      "api/admin/:op": admin.open ? { POST: (exchange) => admin.perform(exchange) } : undefined,
      "api/classify": {
        POST: (exchange) => asker.ask(exchange, modelsOf(exchange.req.originalUrl, options.maxModels)),
      },
      "api/models": {
        GET: ({ requestId }) => ({
          status: 200,
          body: {
            requestId,
            models: catalogOf(broker).list().map(describeModel),
            limits: {
              maxImageBytes: options.maxImageBytes,
              maxVideoBytes: options.maxVideoBytes,
              maxImages: options.maxImages,
            },
          },
        }),
      },
      "api/models/:model": { GET: (exchange) => this.#model(exchange) },
      "api/models/:model/classify": { POST: askOne },
      "api/models/:model/predict": { POST: askOne },
      "api/models/:model/versions/:version/classify": { POST: askVersion },
      "api/models/:model/versions/:version/predict": { POST: askVersion },
      "health/live": { GET: health("live") },
      "health/ready": { GET: health("ready") },
      metrics: {
        GET: async () => ({
          status: 200,
          body: await scrape(broker),
          headers: { "content-type": METRICS_CONTENT_TYPE },
        }),
      },
    };
  }

  /** Answers a routed request. Never rejects. */
  async serve(route: Route, req: RoutedRequest, res: ServerResponse): Promise<void> {
    const startedAt = performance.now();
    const methods = this.#routes[route];
    if (!methods)
      return this.fail(req, res, new ServingError("NOT_FOUND", "There is nothing at this address"));
    note(res, { route: `/${route}` });
    const requestId = idOf(res);
    const hangUp = new AbortController();
    res.once("close", () => {
      if (!res.writableFinished) hangUp.abort();
    });
    const exchange = { req, res, requestId, startedAt, hungUp: hangUp.signal };
    const answer = await this.#answer(methods, exchange);
    const seconds = (performance.now() - startedAt) / 1e3;
    req.$ctx.span?.addTags({
      "http.request.method": req.method,
      "http.route": `/${route}`,
      "http.response.status_code": answer.status,
    });
    send(req, res, {
      ...answer,
      headers: { "server-timing": `total;dur=${(seconds * 1e3).toFixed(2)}`, ...answer.headers },
    });
  }

  /** Counts and logs a request, also one that got no answer from here: a file of the page, or no HTTP at all. */
  record({ seconds, ...access }: Access): void {
    const { route, status } = access;
    count(this.#broker, "http.requests.total", { route, status: String(status) });
    observe(this.#broker, "http.request.seconds", seconds, { route });
    this.#logger.info("Request", { ...access, ms: Math.round(seconds * 1e5) / 1e2 });
  }

  /** Answers a request that failed before it got to a route, or found none. */
  fail(req: IncomingMessage, res: ServerResponse, error: unknown): void {
    send(req, res, this.#failure(error, idOf(res)));
  }

  async #answer(methods: Methods, exchange: Exchange): Promise<Answer> {
    const { method } = exchange.req;
    // Node leaves out the body of an answer to HEAD.
    const handler =
      method === "HEAD" ? methods.GET : method === "GET" || method === "POST" ? methods[method] : undefined;
    try {
      if (handler) return await handler(exchange);
    } catch (error) {
      return this.#failure(error, exchange.requestId);
    }
    const allow = Object.keys(methods).flatMap((name) => (name === "GET" ? ["GET", "HEAD"] : [name]));
    const error = new ServingError("METHOD_NOT_ALLOWED", `Expected ${allow.join(" or ")}`);
    return { ...errorAnswer(error, exchange.requestId), headers: { allow: allow.join(", ") } };
  }

  #failure(error: unknown, requestId: string): Answer {
    if (errorCode(error) !== "INTERNAL") return errorAnswer(error, requestId);
    // moleculer-web's own complaint about a path that is not valid UTF-8.
    if ((error as { code?: unknown }).code === 400) {
      return errorAnswer(new ServingError("BAD_REQUEST", "The address is malformed"), requestId);
    }
    this.#logger.error("Request failed", { requestId }, error);
    return errorAnswer(error, requestId);
  }

  #model({ req, requestId }: Exchange): Answer {
    const name = modelIn(req);
    const model = catalogOf(this.#broker).get(name);
    if (!model) throw new ModelNotFoundError(name);
    return { status: 200, body: { requestId, ...describeModel(model) } };
  }
}

/** moleculer-web's aliases: each address to the service's gateway, which looks at the method itself. */
export const aliases = Object.fromEntries(
  ROUTES.map((route) => [
    route,
    function serve(this: { gateway: Gateway }, req: RoutedRequest, res: ServerResponse): void {
      this.gateway.serve(route, req, res);
    },
  ]),
);

/** moleculer-web's `rootCallOptions`: gives each request its id and trace before anything else looks at it. */
export function openRequest(
  options: Record<string, unknown>,
  req: IncomingMessage,
  res: ServerResponse,
): void {
  const requestID = requestIdOf(req.headers);
  const traceparent = traceparentOf(req.headers);
  // Not tracked: else a stopping service would wait for its requests before it stops taking new ones.
  Object.assign(options, {
    requestID,
    tracking: false,
    ...traceOf(req.url ?? "", requestID, traceparent),
    ...(traceparent ? { meta: { traceparent } } : {}),
  });
  res.setHeader(REQUEST_ID, requestID);
  res.setHeaders(SECURITY_HEADERS);
}

/** Whether and under what a request is traced, for Moleculer; nothing: as the settings say. */
function traceOf(url: string, traceID: string, traceparent: string | undefined) {
  // Probes, scrapes and files of the page would be most of all traces.
  if (!url.startsWith("/api/")) return { parentSpan: { id: null, traceID, sampled: false } };
  const parent = parseTraceparent(traceparent);
  return parent ? { parentSpan: { id: parent.spanId, traceID, sampled: parent.sampled } } : {};
}

function idOf(res: ServerResponse): string {
  return String(res.getHeader(REQUEST_ID));
}

function modelIn(req: RoutedRequest): string {
  return req.$params.params["model"] ?? "";
}
