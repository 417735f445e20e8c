import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { median } from "../testkit/percentile.ts";
import { startServer } from "../testkit/server.ts";
import { drive } from "./load.ts";
import { verdict } from "./verdict.ts";

/**
 * Our server beside a plain one, each under the same load in turns within every round, with one question and with two:
 *
 *     npm run bench -- --peer plain [--rounds N] [--seconds N] [--photos DIR] [--json]
 */
const ROOT = resolve(import.meta.dirname, "..");
const CONNECTIONS = [1, 8, 32];
const QUESTIONS = ["resnet-cat", "resnet-cat,resnet-dog"];
const WARM_UP_SECONDS = 10;

interface Contender {
  readonly name: string;
  readonly url: string;
  readonly process: ChildProcess;
  stop(): Promise<void>;
}

interface Row {
  readonly name: string;
  readonly questions: number;
  readonly connections: number;
  /** Medians over the rounds: images a second, milliseconds, bytes. */
  readonly perSecond: number;
  readonly p50: number;
  readonly p99: number;
  readonly memory: number;
  readonly failed: number;
}

export async function comparePeer(
  images: readonly Buffer[],
  rounds: number,
  seconds: number,
): Promise<{ readonly peer: string; readonly load: readonly Row[] }> {
  const contenders = [await ours(), await plain()];
  const samples: Row[] = [];
  try {
    for (const { url } of contenders) {
      for (const models of QUESTIONS) await drive(target(url, models), images, 8, WARM_UP_SECONDS / 2);
    }
    for (let round = 0; round < rounds; round++) {
      for (const models of QUESTIONS) {
        for (const connections of CONNECTIONS) {
          // Whoever is first has the cooler processor: they take turns.
          for (const { name, url, process } of round % 2 === 0 ? contenders : contenders.toReversed()) {
            const load = await drive(target(url, models), images, connections, seconds);
            const memory = memoryOf(process.pid ?? 0);
            samples.push({ name, questions: models.split(",").length, memory, ...load });
          }
        }
      }
    }
  } finally {
    await Promise.all(contenders.map((contender) => contender.stop()));
  }
  const load = QUESTIONS.flatMap((models) =>
    CONNECTIONS.flatMap((connections) =>
      contenders.map(({ name }) => {
        const questions = models.split(",").length;
        const of = samples.filter(
          (row) => row.name === name && row.questions === questions && row.connections === connections,
        );
        const middle = (key: "perSecond" | "p50" | "p99" | "memory") => median(of.map((row) => row[key]));
        return {
          name,
          questions,
          connections,
          perSecond: middle("perSecond"),
          p50: middle("p50"),
          p99: middle("p99"),
          memory: middle("memory"),
          failed: of.reduce((sum, { failed }) => sum + failed, 0),
        };
      }),
    ),
  );
  return { peer: "plain", load };
}

export function printPeer(load: readonly Row[]): void {
  console.log(
    "questions  connections    server   images/s   p50 ms   p99 ms   MB in all   of the peer   failed",
  );
  for (const row of load) {
    const peer = load.find(
      ({ name, questions, connections }) =>
        name === "plain" && questions === row.questions && connections === row.connections,
    );
    const ratio = row.name === "plain" ? "" : (row.perSecond / (peer?.perSecond ?? Number.NaN)).toFixed(2);
    console.log(
      String(row.questions).padStart(9) +
        String(row.connections).padStart(13) +
        row.name.padStart(10) +
        row.perSecond.toFixed(1).padStart(11) +
        row.p50.toFixed(1).padStart(9) +
        row.p99.toFixed(1).padStart(9) +
        (row.memory / 1e6).toFixed(0).padStart(12) +
        ratio.padStart(14) +
        String(row.failed).padStart(9),
    );
  }
}

/** Images a second beside the plain server when both answer two questions, and bytes over all of our processes. */
const BARS = { ofPeer: 1.1, memoryMB: 500 };

export function peerVerdict(load: readonly Row[]): string {
  const ours = load.filter(({ name }) => name === "ours");
  const plain = load.filter(({ name }) => name === "plain");
  const ratios = CONNECTIONS.map((connections) => {
    const [mine, theirs] = [ours, plain].map((rows) =>
      rows.find((row) => row.questions === 2 && row.connections === connections),
    );
    return {
      what: `of the plain server's images/s with two questions at ${connections} connections`,
      value: (mine?.perSecond ?? Number.NaN) / (theirs?.perSecond ?? Number.NaN),
      atLeast: BARS.ofPeer,
    };
  });
  const memory = Math.max(...ours.map(({ memory }) => memory)) / 1e6;
  const failed = ours.reduce((sum, { failed }) => sum + failed, 0);
  return verdict([
    ...ratios,
    { what: "MB in all", value: memory, atMost: BARS.memoryMB },
    { what: "requests failed", value: failed, atMost: 0 },
  ]);
}

const target = (url: string, models: string) => `${url}/api/classify?models=${models}`;

async function ours(): Promise<Contender> {
  // Without the cache: the same photos come again and again.
  return { name: "ours", ...(await startServer({ CACHE_TTL_MS: "0" })) };
}

async function plain(): Promise<Contender> {
  const child = fork(resolve(import.meta.dirname, "plain-server.ts"), [
    resolve(ROOT, "models/pets-resnet/1/model.onnx"),
  ]);
  const [port] = await Promise.race([once(child, "message"), once(child, "exit")]);
  if (typeof port !== "number" || port === 0) throw new Error("The plain server did not start");
  return {
    name: "plain",
    url: `http://127.0.0.1:${port}`,
    process: child,
    async stop() {
      const gone = once(child, "exit");
      child.kill();
      await gone;
    },
  };
}

/**
 * Bytes of a process and all that it started, what they share counted once (proportional set size, proc(5)); NaN where
 * there is no `/proc`.
 */
export function memoryOf(pid: number): number {
  try {
    const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
    const kilobytes = Number(/^Pss:\s+(\d+) kB/m.exec(rollup)?.[1]);
    const children = readdirSync(`/proc/${pid}/task`).flatMap((task) =>
      readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").split(" ").filter(Boolean),
    );
    return kilobytes * 1024 + children.reduce((sum, child) => sum + memoryOf(Number(child)), 0);
  } catch {
    return Number.NaN;
  }
}
