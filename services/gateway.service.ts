import type { IncomingMessage, ServerResponse } from "node:http";
import { resolve } from "node:path";
import ApiService from "moleculer-web";
import { ASK } from "../lib/actions.ts";
import { defineService } from "../lib/define.ts";
import { env } from "../lib/env.ts";
import { ServingError } from "../lib/errors.ts";
import { aliases, Gateway, openRequest } from "../lib/http/gateway.ts";
import { Listener } from "../lib/http/listener.ts";
import { gatewaySettings } from "../lib/http/options.ts";
import { takesWork } from "../lib/load/load.ts";
import { healthOf } from "../lib/telemetry/health.ts";
import { actionTags, type TracedContext } from "../lib/telemetry/otlp.ts";

interface Vars {
  listener: Listener;
  gateway: Gateway;
  /** Takes back what readiness asks of this service. */
  forget(): void;
  /** moleculer-web's entrance. */
  httpHandler(req: IncomingMessage, res: ServerResponse): void;
}

/** The only HTTP listener: bounds what comes in, sets its deadline, passes it on, and serves the page. */
export default defineService<Vars>()({
  name: "gateway",
  mixins: [ApiService],
  deploy: { role: "gateway" },

  settingsSchema: gatewaySettings,
  settings: {
    // Settings are published to the cluster; functions and folders are nobody's business there.
    $secureSettings: ["routes", "assets", "rootCallOptions"],
    // moleculer-web would wait for ever for a port that it cannot have.
    server: false,
    port: env.PORT,
    ip: env.HOST,
    logRequest: null,
    logRequestParams: null,
    logResponse: null,
    logRouteRegistration: "debug",
    rootCallOptions: openRequest,
    routes: [{ path: "/", bodyParsers: false, mergeParams: false, mappingPolicy: "restrict", aliases }],
    assets: {
      folder: resolve(import.meta.dirname, "../public"),
      // The files carry no hash in their names: browsers ask each time, and are told 304.
      options: {
        cacheControl: false,
        setHeaders: (res: ServerResponse) => res.setHeader("cache-control", "no-cache"),
      },
    },
    http: {
      maxImageBytes: env.MAX_IMAGE_BYTES,
      maxInputBytes: env.MAX_INPUT_BYTES,
      maxVideoBytes: env.MAX_VIDEO_BYTES,
      maxImages: env.MAX_IMAGES,
      maxModels: 32,
      defaultTimeoutMs: env.REQUEST_TIMEOUT_MS,
      maxTimeoutMs: env.MAX_REQUEST_TIMEOUT_MS,
      bodyTimeoutMs: env.BODY_TIMEOUT_MS,
      minBodyRate: { bytes: 5120, everyMs: 5000 },
      maxInFlight: env.MAX_IN_FLIGHT,
      maxBufferedBytes: env.MAX_BUFFERED_BYTES,
      maxHeaderBytes: 16_384,
      keepAliveTimeoutMs: 65_000,
      writeTimeoutMs: 30_000,
      maxConnections: 4096,
      trustedProxies: env.TRUSTED_PROXIES,
    },
  },

  actions: {
    // moleculer-web's own, which anyone on the bus could call to open or close doors.
    addRoute: false,
    removeRoute: false,
    listAliases: false,
    // Its spans have moleculer-web's tags and names else, with the whole URL in them.
    rest: { tracing: { tags: (ctx: TracedContext) => actionTags(ctx), spanName: "gateway.rest" } },
  },

  created() {
    // Not among the settings, which are published to the cluster.
    this.gateway = new Gateway(this.broker, this.logger, this.settings.http, env.ADMIN_KEYS);
    this.listener = new Listener(this.settings.http, this.httpHandler, (access) =>
      this.gateway.record(access),
    );
    this.forget = healthOf(this.broker).require({
      name: "dispatcher",
      probe: "ready",
      met: () => takesWork(this.broker, ASK),
    });
  },

  async started() {
    await this.listener.listen(this.settings.port, this.settings.ip);
  },

  async stopped() {
    this.forget();
    await this.listener.drain();
  },

  methods: {
    errorHandler(req: IncomingMessage, res: ServerResponse, error: unknown) {
      this.gateway.fail(req, res, error);
    },
    send404(req: IncomingMessage, res: ServerResponse) {
      this.gateway.fail(req, res, new ServingError("NOT_FOUND", "There is nothing at this address"));
    },
  },
});
