import { bool, cleanEnv, makeValidator, str } from "envalid";
import { addressList } from "./http/client.ts";
import { NODE_ID } from "./node-id.ts";
import { StartError } from "./start-error.ts";

/** A whole number of at least `min` (and at most `max`); units may not be written. */
const whole = (min: number, max = Number.MAX_SAFE_INTEGER) =>
  makeValidator<number>((input) => {
    const value = Number(input);
    if (!/^\d+$/.test(input.trim()) || value < min || value > max) {
      throw new Error(`expected a whole number from ${min} to ${max} but received "${input}"`);
    }
    return value;
  });

/** RabbitMQ takes messages of up to 16 MiB (its default since 4.0), and the rest of a request fits in this. */
export const MAX_PAYLOAD_BYTES = 16 * 1024 * 1024 - 64 * 1024;

/** Addresses of proxies. */
const proxies = makeValidator<readonly string[]>((input) => {
  const ranges = listOf(input);
  addressList(ranges);
  return ranges;
});

/** Someone who may change what models do. */
export interface AdminKey {
  /** For the log. */
  readonly name: string;
  readonly key: string;
}

/** Names and keys of admins. What is wrong is told without what was given. */
const adminKeys = makeValidator<readonly AdminKey[]>((input) =>
  listOf(input).map((entry) => {
    const [, name, key] = /^([\w.@-]{1,64})=(\S{16,512})$/.exec(entry) ?? [];
    if (name && key) return { name, key };
    throw new Error(
      "expected name=key, joined by commas, with keys of at least 16 characters without spaces",
    );
  }),
);

/** A comma-separated list without blanks and empty entries. */
const list = makeValidator<readonly string[]>(listOf);

/**
 * Whether this is an address of that scheme. One whose password holds a character that ends the host is none: the rest
 * of the password would be read as something that may be logged.
 */
function isAddress(url: string, scheme: RegExp): boolean {
  return scheme.test(url) && URL.canParse(url) && !/[/?#].*@/.test(url.replace(scheme, ""));
}

/** For messages about addresses, which never repeat what was received: it may hold a password. */
const ENCODED = "with /, ?, # and @ in a password written as %2F, %3F, %23 and %40";

const transporterUrl = makeValidator<string>((input) => {
  if (input !== "" && !input.split(";").every((url) => isAddress(url, /^amqps?:\/\/(?=.)/))) {
    throw new Error(`expected amqp:// or amqps:// addresses joined by ";", ${ENCODED}`);
  }
  return input;
});

const redisUrl = makeValidator<string>((input) => {
  if (input !== "" && !isAddress(input, /^rediss?:\/\/(?=.)/)) {
    throw new Error(`expected a redis:// or rediss:// address, ${ENCODED}`);
  }
  return input;
});

const httpUrl = makeValidator<string>((input) => {
  if (input !== "" && !/^https?:\/\/./.test(input))
    throw new Error("expected an http:// or https:// address");
  return input;
});

/** Addresses below which files lie. */
const origins = makeValidator<readonly string[]>((input) => {
  const urls = listOf(input);
  if (urls.every((url) => /^https?:\/\/[^/?#@]+(\/[^?#]*)?$/.test(url) && URL.canParse(url))) return urls;
  throw new Error(
    "expected http:// or https:// addresses without user, query and fragment, joined by commas",
  );
});

/** Names and values of HTTP headers. What is wrong is told without what was given. */
const headers = makeValidator<readonly (readonly [string, string])[]>((input) => {
  try {
    const value = JSON.parse(input || "{}") as Record<string, unknown>;
    // Node's own check of names and values.
    return [...new Headers(value as Record<string, string>)];
  } catch {
    throw new Error('expected headers in JSON, {"name": "value"}');
  }
});

/** `<model>=<address>`, by the models' names. */
const remoteEngines = makeValidator<readonly (readonly [model: string, url: string])[]>((input) => {
  const pairs = listOf(input).map((pair) => {
    const [, name = "", url = ""] = /^([^=]+)=(.*)$/.exec(pair) ?? [];
    return [name, url] as const;
  });
  for (const [name, url] of pairs) {
    if (name === "" || !isAddress(url, /^https?:\/\/(?=.)/)) {
      throw new Error(`expected <model>=http://… pairs joined by ",", ${ENCODED}`);
    }
  }
  return pairs;
});

/** From 0 to 1. */
const share = makeValidator<number>((input) => {
  const value = Number(input);
  if (input.trim() === "" || !(value >= 0 && value <= 1)) {
    throw new Error(`expected a number from 0 to 1 but received "${input}"`);
  }
  return value;
});

/** Names that are safe in logs, in metrics and in RabbitMQ. */
const name = (least: number, most: number) =>
  makeValidator<string>((input) => {
    if (input.length < least || input.length > most || !NODE_ID.test(input)) {
      throw new Error(`expected ${least} to ${most} letters, digits and ._:@+,- but received "${input}"`);
    }
    return input;
  });

/** Every variable the server reads: the README's table of settings is made from this one. */
export const VARIABLES = {
  PORT: whole(0, 65535)({ default: 3000, desc: "HTTP port of the gateway; 0 takes any free one" }),
  HOST: str({ default: "0.0.0.0", desc: "address the gateway listens on" }),
  ADMIN_PORT: whole(
    0,
    65535,
  )({
    default: 0,
    desc: "port for health and metrics of this process, needed where no gateway runs; 0: none",
  }),
  ADMIN_KEYS: adminKeys({
    default: [] as readonly AdminKey[],
    desc: "who may change what models do, `POST /api/admin/…`: `name=key` joined by commas, keys of at least 16 characters; empty: there is no such address",
  }),
  TRUSTED_PROXIES: proxies({
    default: [] as readonly string[],
    desc: "proxies whose `X-Forwarded-For` tells clients apart: addresses and ranges, e.g. `10.0.0.0/8`; one client may hold three quarters of connections and bytes",
  }),
  SERVICES: list({
    default: [] as readonly string[],
    desc: "services of this process, e.g. `gateway,dispatcher`; empty: all of `services/`",
  }),
  SERVICES_DIRS: list({
    default: ["services"] as readonly string[],
    desc: "folders with `*.service.ts` files",
  }),
  MODEL: str({ default: "pets-resnet", desc: "the model that `resnet-cat` and `resnet-dog` ask" }),
  MODELS_DIR: str({ default: "models", desc: "folder of the models: `<name>/<version>/manifest.json`" }),
  MODELS_POLL_MS: whole(
    0,
    86_400_000,
  )({
    default: 60_000,
    desc: "how often each model's new versions are looked for, give or take a tenth; 0: only on demand",
  }),
  MODELS_ORIGIN: origins({
    default: [] as readonly string[],
    desc: "where new versions are fetched from into `MODELS_DIR`: http(s) addresses with the same tree and `<name>/index.json`, mirrors joined by commas; empty: nowhere",
  }),
  MODELS_ORIGIN_HEADERS: headers({
    default: [] as readonly (readonly [string, string])[],
    desc: 'headers for the origin, in JSON, e.g. `{"authorization": "Bearer …"}`',
  }),
  MODELS_ORIGIN_PRIVATE_REDIRECTS: bool({
    default: false,
    desc: "whether the origin may redirect to private addresses",
  }),
  MODELS_MAX_BYTES: whole(1)({ default: 1_073_741_824, desc: "largest version that is fetched" }),
  REMOTE_ENGINES: remoteEngines({
    default: [] as readonly (readonly [string, string])[],
    desc: "servers that compute models here, instead of the addresses in their manifests: `<model>=http://user:password@host:8000`, several joined by `,`",
  }),
  TRANSPORTER: transporterUrl({
    default: "",
    desc: 'RabbitMQ, amqp:// or amqps:// (a private authority: NODE_EXTRA_CA_CERTS), several joined by ";"; empty: one process alone',
  }),
  REDIS_URL: redisUrl({
    default: "",
    desc: "shared response cache; empty: each dispatcher has its own in memory",
  }),
  NAMESPACE: name(
    1,
    64,
  )({ default: "dl", desc: "clusters with different namespaces on one RabbitMQ never meet" }),
  NODE_ID: name(
    0,
    200,
  )({
    default: "",
    desc: "name of this process in the cluster; empty: services, host and process id",
  }),
  LOG_LEVEL: str({
    default: "info",
    choices: ["fatal", "error", "warn", "info", "debug", "trace"],
    desc: "least severe line that is logged",
  }),
  LOG_FORMAT: str({
    default: "text",
    choices: ["text", "json"],
    desc: "log lines for people or for machines",
  }),
  OTEL_EXPORTER_OTLP_ENDPOINT: httpUrl({
    default: "",
    desc: "where traces go: an OpenTelemetry collector's OTLP over HTTP, e.g. `http://localhost:4318`; empty: no traces",
  }),
  OTEL_TRACES_SAMPLER_ARG: share({
    default: 1,
    desc: "share of requests that are traced, of those whose client does not say (`traceparent`)",
  }),
  REQUEST_TIMEOUT_MS: whole(1)({
    default: 10_000,
    desc: "deadline of a request that names none, from the end of its body",
  }),
  MAX_REQUEST_TIMEOUT_MS: whole(
    1,
    600_000,
  )({ default: 60_000, desc: "the longest deadline a client may ask for" }),
  BODY_TIMEOUT_MS: whole(1)({ default: 30_000, desc: "time a client has to send its request" }),
  MAX_IN_FLIGHT: whole(1)({
    default: 256,
    desc: "requests the gateway holds at once, one model at most seven eighths; more are refused with 503",
  }),
  MAX_BUFFERED_BYTES: whole(1)({ default: 268_435_456, desc: "bytes of uploads the gateway holds at once" }),
  MAX_MODEL_IN_FLIGHT: whole(1)({
    default: 256,
    desc: "requests a dispatcher has open to one model; more are refused with 503, undecoded",
  }),
  MAX_IMAGE_BYTES: whole(1, MAX_PAYLOAD_BYTES)({ default: 10_485_760, desc: "largest image, encoded" }),
  MAX_INPUT_BYTES: whole(
    1,
    MAX_PAYLOAD_BYTES,
  )({ default: 1_048_576, desc: "largest input of any other kind, as it is sent" }),
  MAX_VIDEO_BYTES: whole(1, MAX_PAYLOAD_BYTES)({ default: 15_728_640, desc: "largest clip, encoded" }),
  FFMPEG: str({
    default: "",
    desc: "path of FFmpeg's program (5.1 or newer), which takes clips apart; empty: the first on the PATH",
  }),
  MAX_IMAGE_PIXELS: whole(1)({
    default: 40_000_000,
    desc: "largest image, decoded; of AVIF, which takes more memory, 16 to 28 million",
  }),
  MAX_IMAGES: whole(1, 1000)({ default: 16, desc: "images, or inputs of another kind, in one request" }),
  DECODE_CONCURRENCY: whole(0)({
    default: 0,
    desc: "images decoded at once by a dispatcher, each in a process of its own; 0: the cores, at most 3",
  }),
  ENGINE_THREADS: whole(0)({
    default: 0,
    desc: "threads of a batch that is computed alone; 0: the CPU limit",
  }),
  ENGINE_INSTANCES: whole(1)({
    default: 2,
    desc: "batches a process computes at once, of all its models; each model has so many engines, each a process with its weights",
  }),
  MAX_BATCH_SIZE: whole(1)({ default: 8, desc: "items in a batch" }),
  MAX_QUEUE_SIZE: whole(1)({ default: 128, desc: "items a model lets wait; more are refused with 503" }),
  MAX_QUEUE_DELAY_MS: whole(0)({
    default: 0,
    desc: "how long an item may wait for company while the engine is busy",
  }),
  LATENCY_TARGET_MS: whole(0)({
    default: 0,
    desc: "batches grow only while their compute time stays below; 0: off",
  }),
  CACHE_TTL_MS: whole(0)({ default: 300_000, desc: "life of a cached answer; 0: no cache" }),
  CACHE_MAX_ENTRIES: whole(1)({ default: 10_000, desc: "answers the in-memory cache holds" }),
  PREFETCH: whole(0)({
    default: 0,
    desc: "requests a node takes from RabbitMQ at once; 0: four batches, a dispatcher twice MAX_MODEL_IN_FLIGHT",
  }),
  STEAL_AFTER_MS: whole(
    1,
    600_000,
  )({
    default: 500,
    desc: "a request its node has not taken by then goes to any other",
  }),
  MAX_PENDING_BYTES: whole(1)({
    default: 268_435_456,
    desc: "bytes of requests a process keeps until RabbitMQ brings their answers; more are refused with 503",
  }),
  DEAD_LETTER_TTL_MS: whole(
    1,
    30 * 24 * 3_600_000,
  )({
    default: 24 * 3_600_000,
    desc: "how long a request that kills processes is kept in RabbitMQ for people to look at, its photo included",
  }),
  DRAIN_GRACE_MS: whole(0)({ default: 25_000, desc: "time to finish what is in flight after SIGTERM" }),
};

function listOf(input: string): readonly string[] {
  return input
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}

/** Thrown when the environment is wrong; the message lists every mistake. */
export class EnvironmentError extends StartError {
  constructor(mistakes: readonly string[]) {
    super(
      `The environment has ${mistakes.length} mistake${mistakes.length > 1 ? "s" : ""}:\n${mistakes.join("\n")}`,
    );
    this.name = "EnvironmentError";
  }
}

/**
 * The settings in `source`, validated and frozen.
 *
 * @throws EnvironmentError with all mistakes at once
 */
export function loadEnv(source: Readonly<Record<string, string | undefined>>) {
  const set = Object.fromEntries(
    Object.entries(source).filter(([, value]) => value !== undefined && value !== ""),
  );
  const env = cleanEnv(set, VARIABLES, {
    reporter: ({ errors }) => {
      const mistakes = Object.entries(errors).map(
        ([name, error]) => `  ${name}: ${(error as Error).message}`,
      );
      if (mistakes.length > 0) throw new EnvironmentError(mistakes);
    },
  });
  return Object.freeze(
    Object.fromEntries(Object.keys(VARIABLES).map((name) => [name, env[name as Name]])),
  ) as Env;
}

type Name = keyof typeof VARIABLES;

/** The validated settings. */
export type Env = { readonly [K in Name]: ReturnType<typeof cleanEnv<typeof VARIABLES>>[K] };

/** The settings of this process. Importing this module throws {@link EnvironmentError} when they are wrong. */
export const env: Env = loadEnv(process.env);
