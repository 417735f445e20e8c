import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { resolve } from "node:path";

export interface TestServer {
  /** `http://127.0.0.1:<port>`; empty for a process without gateway. */
  readonly url: string;
  readonly process: ChildProcess;
  /** All it has printed. */
  log(): string;
  stop(): Promise<void>;
}

const ROOT = resolve(import.meta.dirname, "..");
const START_DEADLINE_MS = 60_000;
const STOP_DEADLINE_MS = 15_000;

/**
 * Starts the real server as a process of its own, on a free port, and resolves when it is ready.
 *
 * @param env settings on top of the defaults
 * @param folders with services besides the server's own, as `npm start -- …` takes them
 * @param root of another checkout
 */
export async function startServer(
  env: Readonly<Record<string, string>> = {},
  folders: readonly string[] = [],
  root: string = ROOT,
): Promise<TestServer> {
  const child = spawn(process.execPath, ["bin/start.ts", ...folders], {
    cwd: root,
    env: { PATH: process.env["PATH"], HOME: process.env["HOME"], PORT: "0", HOST: "127.0.0.1", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let text = "";
  const port = new Promise<string>((found, failed) => {
    const collect = (chunk: Buffer) => {
      text += chunk.toString();
      const match = /Serving on http:\/\/[^\s:]+:(\d+)/.exec(text) ?? /(Ready without HTTP)/.exec(text);
      if (match?.[1]) found(match[1]);
    };
    child.stdout.on("data", collect);
    child.stderr.on("data", collect);
    child.once("exit", (code) => failed(new Error(`The server exited with ${code}:\n${text}`)));
    setTimeout(
      () => failed(new Error(`The server was not ready in time:\n${text}`)),
      START_DEADLINE_MS,
    ).unref();
  });
  const stop = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), STOP_DEADLINE_MS);
    await gone;
    clearTimeout(timer);
  };
  try {
    const found = await port;
    const url = /^\d+$/.test(found) ? `http://127.0.0.1:${found}` : "";
    return { url, process: child, log: () => text, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
