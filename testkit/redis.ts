import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { rmSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { installed } from "./debian.ts";
import { eventually } from "./eventually.ts";
import { freePort } from "./port.ts";

const run = promisify(execFile);
const START_TIMEOUT_MS = 30_000;
const DOCKER_IMAGE = "redis:7-alpine";
const SERVERS = ["/usr/bin/redis-server", "/usr/local/bin/redis-server", "/opt/homebrew/bin/redis-server"];

/** A Redis of our own, empty, that may be killed. */
export interface TestRedis {
  readonly url: string;
  /** Resolves when it answers. */
  start(): Promise<void>;
  /** SIGKILL. What it held is gone. */
  kill(): Promise<void>;
  /** Kills it and deletes what it left. */
  remove(): Promise<void>;
}

/** Always starts a Redis of our own: from the installed package, else by installing it, else with Docker. */
export async function startRedis(): Promise<TestRedis> {
  const server = await installed(SERVERS, "redis-server");
  const redis = server ? await localRedis(server) : await dockerRedis();
  await redis.start();
  return redis;
}

async function localRedis(server: string): Promise<TestRedis> {
  const folder = await mkdtemp(join(tmpdir(), "redis-"));
  const port = await freePort();
  let running: ChildProcess | undefined;
  const killAtExit = () => {
    running?.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  };
  process.on("exit", killAtExit);
  const redis: TestRedis = {
    url: `redis://127.0.0.1:${port}`,
    async start() {
      const where = ["--port", String(port), "--bind", "127.0.0.1", "--dir", folder];
      running = spawn(server, [...where, "--save", "", "--appendonly", "no"], { stdio: "ignore" });
      await eventually(() => answers(port), START_TIMEOUT_MS);
    },
    async kill() {
      const child = running;
      running = undefined;
      if (!child || child.exitCode !== null || child.signalCode !== null) return;
      const exited = once(child, "exit");
      child.kill("SIGKILL");
      await exited;
    },
    async remove() {
      process.off("exit", killAtExit);
      await redis.kill();
      await rm(folder, { recursive: true, force: true });
    },
  };
  return redis;
}

async function dockerRedis(): Promise<TestRedis> {
  const port = await freePort();
  const { stdout } = await run("docker", ["create", "--publish", `127.0.0.1:${port}:6379`, DOCKER_IMAGE]);
  const id = stdout.trim();
  const removeAtExit = () => execFileSync("docker", ["rm", "--force", id], { stdio: "ignore" });
  process.on("exit", removeAtExit);
  return {
    url: `redis://127.0.0.1:${port}`,
    async start() {
      await run("docker", ["start", id]);
      await eventually(() => answers(port), START_TIMEOUT_MS);
    },
    async kill() {
      await run("docker", ["kill", id]);
    },
    async remove() {
      process.off("exit", removeAtExit);
      await run("docker", ["rm", "--force", "--volumes", id]);
    },
  };
}

/** Whether it says PONG: an open port is not yet a running Redis. */
async function answers(port: number): Promise<boolean> {
  const socket = createConnection(port, "127.0.0.1");
  try {
    socket.write("PING\r\n");
    const [reply] = (await once(socket, "data", { signal: AbortSignal.timeout(2000) })) as [Buffer];
    return reply.toString().startsWith("+PONG");
  } finally {
    socket.destroy();
  }
}
