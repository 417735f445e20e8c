/** What the gateway lets in, and for how long. The service's `settings.http`. */
export interface GatewayOptions {
  /** Largest encoded image, bytes. @default 10 MiB */
  readonly maxImageBytes: number;
  /** Most images in one request. @default 16 */
  readonly maxImages: number;
  /** Most model names in one request. @default 32 */
  readonly maxModels: number;
  /** Deadline of a request that names none, milliseconds from its head. @default 10 000 */
  readonly defaultTimeoutMs: number;
  /** Longest deadline a client may ask for; more is cut down to it. @default 60 000 */
  readonly maxTimeoutMs: number;
  /** Time a client has to send its body, milliseconds. @default 10 000 */
  readonly bodyTimeoutMs: number;
  /** Requests held at once, from head to answer; one more is refused. @default 256 */
  readonly maxInFlight: number;
  /** Bytes of bodies held at once, over all requests. @default 256 MiB */
  readonly maxBufferedBytes: number;
  /** Largest head of a request, bytes. @default 16 KiB */
  readonly maxHeaderBytes: number;
  /**
   * How long an idle connection stays open, milliseconds. Longer than a load balancer keeps its own (AWS and GCP:
   * 60 s), else it sends a request into a connection that is just being closed. @default 65 000
   */
  readonly keepAliveTimeoutMs: number;
  /** Open connections; one more is dropped. @default 4096 */
  readonly maxConnections: number;
}
