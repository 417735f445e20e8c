import { z } from "zod";
import { whole } from "../check.ts";
import { addressList } from "./client.ts";

const RANGE = "an IP address or a range such as 10.0.0.0/8";

/** What the gateway lets in, and for how long. The service's `settings.http`. */
export const gatewayOptions = z
  .strictObject({
    /** Largest encoded image, bytes. @default 10 MiB */
    maxImageBytes: whole(1),
    /** Largest input of any other kind, bytes. @default 1 MiB */
    maxInputBytes: whole(1),
    /** Largest clip, bytes. @default 15 MiB */
    maxVideoBytes: whole(1),
    /** Most inputs in one request. @default 16 */
    maxImages: whole(1),
    /** Most model names in one request. @default 32 */
    maxModels: whole(1),
    /** Deadline of a request that names none, milliseconds from its head. @default 10 000 */
    defaultTimeoutMs: whole(1),
    /** Longest deadline a client may ask for; more is cut down to it. @default 60 000 */
    maxTimeoutMs: whole(1),
    /** Time a client has to send its body, milliseconds. @default 30 000 */
    bodyTimeoutMs: whole(1),
    /**
     * The least a body must bring in a while; one that brings less is given up, since all that it brought before is held
     * meanwhile. @default 5120 bytes every 5 s: a tenth of what the slowest mobile network carries
     */
    minBodyRate: z.strictObject({ bytes: whole(0), everyMs: whole(1) }).readonly(),
    /** Requests held at once, from the end of the body to the answer; one more is refused. @default 256 */
    maxInFlight: whole(1),
    /** Bytes of bodies held at once, over all requests; one address has at most three quarters. @default 256 MiB */
    maxBufferedBytes: whole(1),
    /** Largest head of a request, bytes. @default 16 KiB */
    maxHeaderBytes: whole(1),
    /**
     * How long an idle connection stays open, milliseconds. Longer than a load balancer keeps its own (AWS and GCP:
     * 60 s), else it sends a request into a connection that is just being closed. @default 65 000
     */
    keepAliveTimeoutMs: whole(0),
    /**
     * Time a client has to take the next part of its answer (64 KiB of a file, or the whole of a small answer),
     * milliseconds. @default 30 000
     */
    writeTimeoutMs: whole(1),
    /** Open connections, for one more the longest idle one is closed; one address has at most three quarters. @default 4096 */
    maxConnections: whole(1),
    /** Addresses and ranges of proxies whose `X-Forwarded-For` is believed. @default none */
    trustedProxies: z.array(z.string().refine(isRange, RANGE)).readonly(),
  })
  // Else no image of that size would ever be let in.
  .refine(
    ({ maxBufferedBytes, maxImageBytes, maxInputBytes, maxVideoBytes }) =>
      maxBufferedBytes >= Math.max(maxImageBytes, maxInputBytes, maxVideoBytes),
    "a maxBufferedBytes of at least maxImageBytes, maxInputBytes and maxVideoBytes",
  );

export type GatewayOptions = Readonly<z.infer<typeof gatewayOptions>>;

/** The settings of the gateway's service: of moleculer-web's those that we use, whose meaning is its business. */
export const gatewaySettings = z.strictObject({
  $secureSettings: z.array(z.string()),
  server: z.literal(false),
  port: whole(0, 65_535),
  ip: z.string().min(1, "an address to listen on"),
  logRequest: z.null(),
  logRequestParams: z.null(),
  logResponse: z.null(),
  logRouteRegistration: z.string(),
  rootCallOptions: z.custom<(...args: never[]) => void>(isFunction, "a function"),
  routes: z.array(z.looseObject({ path: z.string() })),
  assets: z.looseObject({ folder: z.string().min(1, "a folder") }),
  http: gatewayOptions,
});

function isFunction(value: unknown): boolean {
  return typeof value === "function";
}

function isRange(range: string): boolean {
  try {
    addressList([range]);
    return true;
  } catch {
    return false;
  }
}
