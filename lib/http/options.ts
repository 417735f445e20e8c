/** What the gateway lets in, and for how long. The service's `settings.http`. */
export interface GatewayOptions {
  /** Largest encoded image, bytes. @default 10 MiB */
  readonly maxImageBytes: number;
  /** Largest input of any other kind, bytes. @default 1 MiB */
  readonly maxInputBytes: number;
  /** Most inputs in one request. @default 16 */
  readonly maxImages: number;
  /** Most model names in one request. @default 32 */
  readonly maxModels: number;
  /** Deadline of a request that names none, milliseconds from its head. @default 10 000 */
  readonly defaultTimeoutMs: number;
  /** Longest deadline a client may ask for; more is cut down to it. @default 60 000 */
  readonly maxTimeoutMs: number;
  /** Time a client has to send its body, milliseconds. @default 30 000 */
  readonly bodyTimeoutMs: number;
  /**
   * The least a body must bring in a while; one that brings less is given up, since all that it brought before is held
   * meanwhile. @default 5120 bytes every 5 s: a tenth of what the slowest mobile network carries
   */
  readonly minBodyRate: { readonly bytes: number; readonly everyMs: number };
  /** Requests held at once, from the end of the body to the answer; one more is refused. @default 256 */
  readonly maxInFlight: number;
  /** Bytes of bodies held at once, over all requests; one address has at most three quarters. @default 256 MiB */
  readonly maxBufferedBytes: number;
  /** Largest head of a request, bytes. @default 16 KiB */
  readonly maxHeaderBytes: number;
  /**
   * How long an idle connection stays open, milliseconds. Longer than a load balancer keeps its own (AWS and GCP:
   * 60 s), else it sends a request into a connection that is just being closed. @default 65 000
   */
  readonly keepAliveTimeoutMs: number;
  /**
   * Time a client has to take the next part of its answer (64 KiB of a file, or the whole of a small answer),
   * milliseconds. @default 30 000
   */
  readonly writeTimeoutMs: number;
  /** Open connections, for one more the longest idle one is closed; one address has at most three quarters. @default 4096 */
  readonly maxConnections: number;
  /** Addresses and ranges of proxies whose `X-Forwarded-For` is believed. @default none */
  readonly trustedProxies: readonly string[];
}
