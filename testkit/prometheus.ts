import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { installed } from "./debian.ts";
import { eventually } from "./eventually.ts";
import { freePort } from "./port.ts";

const PACKAGE = "prometheus";

/** The path of Prometheus' `promtool`, of Debian's package. */
export async function promtool(): Promise<string> {
  return need("promtool");
}

/** What `promtool` has to say, with its exit code. */
export function runPromtool(path: string, args: readonly string[], input = "") {
  const { stdout, stderr, status, error } = spawnSync(path, args, { input, encoding: "utf8" });
  if (error) throw error;
  return { status, text: `${stdout}${stderr}` };
}

/** What `promtool check metrics` has to say of a scrape; empty where all is well. */
export function checkMetrics(path: string, text: string): string {
  return runPromtool(path, ["check", "metrics"], text).text;
}

export interface Sample {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: number;
}

/** A Prometheus of our own. */
export interface Prometheus {
  /** The samples of an instant query now. @throws what Prometheus has against it */
  query(expr: string): Promise<readonly Sample[]>;
  /** `data` of any address of its API. */
  api<T>(path: string): Promise<T>;
  stop(): Promise<void>;
}

/** @param config its configuration, JSON being YAML */
export async function startPrometheus(config: unknown): Promise<Prometheus> {
  const path = await need("prometheus");
  const folder = await mkdtemp(join(tmpdir(), "prometheus-"));
  const port = await freePort();
  const file = join(folder, "prometheus.yml");
  await writeFile(file, JSON.stringify(config));
  const child = spawn(
    path,
    [
      `--config.file=${file}`,
      `--storage.tsdb.path=${join(folder, "data")}`,
      `--web.listen-address=127.0.0.1:${port}`,
    ],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  let log = "";
  child.stderr.on("data", (chunk: Buffer) => {
    log += chunk.toString();
  });
  const base = `http://127.0.0.1:${port}`;
  async function api<T>(address: string): Promise<T> {
    const response = await fetch(`${base}/api/v1/${address}`);
    const { status, data, error } = (await response.json()) as { status: string; data: T; error?: string };
    if (status !== "success") throw new Error(`${address}: ${error}`);
    return data;
  }
  async function stop() {
    if (child.exitCode === null && child.signalCode === null) {
      const gone = once(child, "exit");
      child.kill("SIGTERM");
      await gone;
    }
    await rm(folder, { recursive: true, force: true });
  }
  try {
    await eventually(async () => {
      if (child.exitCode !== null) throw new Error(`Prometheus ended:\n${log}`);
      return (await fetch(`${base}/-/ready`)).ok;
    }, 30_000);
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    api,
    stop,
    async query(expr) {
      const { result } = await api<{ result: { metric: Sample["metric"]; value: [number, string] }[] }>(
        `query?${new URLSearchParams({ query: expr })}`,
      );
      return result.map(({ metric, value: [, value] }) => ({ metric, value: Number(value) }));
    },
  };
}

async function need(name: string): Promise<string> {
  const path = await installed([`/usr/bin/${name}`, `/usr/local/bin/${name}`], PACKAGE);
  if (!path) throw new Error(`Expected ${name}: \`apt-get install ${PACKAGE}\``);
  return path;
}
