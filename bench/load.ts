import autocannon from "autocannon";
import { percentile } from "../test/helpers/percentile.ts";

export interface LoadResult {
  readonly connections: number;
  /** Answers with status 200, a second. */
  readonly perSecond: number;
  /** Milliseconds. */
  readonly p50: number;
  readonly p99: number;
  /** Answers with another status, errors and time-outs. */
  readonly failed: number;
}

/** Posts the images in turn over `connections` for `seconds`, each connection waiting for its answer. */
export async function drive(
  url: string,
  images: readonly Buffer[],
  connections: number,
  seconds: number,
): Promise<LoadResult> {
  const times: number[] = [];
  const result = await new Promise<autocannon.Result>((resolve, reject) => {
    const run = autocannon(
      {
        url,
        connections,
        duration: seconds,
        timeout: 30,
        requests: images.map((body) => ({
          method: "POST",
          headers: { "content-type": "image/jpeg" },
          body,
        })),
      },
      (error, done) => (error ? reject(error) : resolve(done)),
    );
    // Autocannon's own percentiles are whole milliseconds.
    run.on("response", (_client, _status, _bytes, milliseconds) => times.push(milliseconds));
  });
  return {
    connections,
    perSecond: result["2xx"] / result.duration,
    p50: percentile(times, 0.5),
    p99: percentile(times, 0.99),
    failed: result.non2xx + result.errors + result.timeouts,
  };
}
