import autocannon from "autocannon";
import { percentile } from "../testkit/percentile.ts";
import { cpuMeter } from "../testkit/steal.ts";

export interface LoadResult {
  readonly connections: number;
  /** Answers with status 200, a second. */
  readonly perSecond: number;
  /** Milliseconds. */
  readonly p50: number;
  readonly p99: number;
  /** CPU milliseconds of an answer: of all that runs on this machine, the load generator too. */
  readonly cpuMs: number;
  /** Answers with another status, errors and time-outs. */
  readonly failed: number;
}

/** Before the measurement, seconds: until as much is in flight as later, and each batch as large. */
const RAMP_SECONDS = 2;

/** Posts the images in turn over `connections`, each waiting for its answer, and looks at `seconds` of it. */
export async function drive(
  url: string,
  images: readonly Buffer[],
  connections: number,
  seconds: number,
): Promise<LoadResult> {
  const times: number[] = [];
  let [answered, cpuSeconds] = [0, 0];
  const result = await new Promise<autocannon.Result>((resolve, reject) => {
    const run = autocannon(
      {
        url,
        connections,
        duration: RAMP_SECONDS + seconds,
        timeout: 30,
        requests: images.map((body) => ({
          method: "POST",
          headers: { "content-type": "image/jpeg" },
          body,
        })),
      },
      (error, done) => (error ? reject(error) : resolve(done)),
    );
    const begin = performance.now() + RAMP_SECONDS * 1e3;
    const end = begin + seconds * 1e3;
    setTimeout(() => {
      const used = cpuMeter();
      setTimeout(() => {
        cpuSeconds = used();
      }, end - performance.now());
    }, RAMP_SECONDS * 1e3);
    // Autocannon's own percentiles are whole milliseconds, and it counts the beginning in.
    run.on("response", (_client, status, _bytes, milliseconds) => {
      const now = performance.now();
      if (now < begin || now >= end) return;
      times.push(milliseconds);
      if (status === 200) answered++;
    });
  });
  return {
    connections,
    perSecond: answered / seconds,
    p50: percentile(times, 0.5),
    p99: percentile(times, 0.99),
    cpuMs: (cpuSeconds * 1e3) / answered,
    failed: result.non2xx + result.errors + result.timeouts,
  };
}
