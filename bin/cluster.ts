import { type ChildProcess, spawn } from "node:child_process";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { serviceFiles } from "./app.ts";

/**
 * A whole cluster on this machine: a process for each replica of each service, over RabbitMQ.
 *
 *     npm run cluster -- --cat 2 --dog 1 --dispatcher 2
 *
 * Every file in `services/` runs once unless told otherwise; `--cat` is short for `--resnet-cat`.
 */
const ROOT = resolve(import.meta.dirname, "..");
const DEFAULT_TRANSPORTER = "amqp://guest:guest@127.0.0.1:5672";
const FIRST_ADMIN_PORT = 9100;

const services = [...serviceFiles([resolve(ROOT, "services")]).keys()];
const short = (name: string) => name.replace(/^resnet-/, "");
const options = Object.fromEntries(
  services.flatMap((name) => [name, short(name)]).map((name) => [name, { type: "string" as const }]),
);

function replicas(name: string, given: Readonly<Record<string, string | boolean | undefined>>): number {
  const value = given[name] ?? given[short(name)] ?? "1";
  const count = Number(value);
  if (!Number.isInteger(count) || count < 0 || count > 64) {
    throw new RangeError(
      `Expected --${short(name)} to be a whole number from 0 to 64 but received "${value}"`,
    );
  }
  return count;
}

function start(service: string, replica: number, adminPort: number): ChildProcess {
  const name = `${service}-${replica}`;
  const child = spawn(process.execPath, [resolve(ROOT, "bin/start.ts")], {
    cwd: ROOT,
    env: {
      TRANSPORTER: DEFAULT_TRANSPORTER,
      ADMIN_PORT: String(adminPort),
      ...process.env,
      SERVICES: service,
      NODE_ID: name,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on("line", (line) => console.log(`${name.padEnd(14)} │ ${line}`));
  }
  child.on("exit", (code, signal) => console.log(`${name.padEnd(14)} │ exited with ${signal ?? code}`));
  return child;
}

try {
  const { values } = parseArgs({ options });
  const wanted = services.flatMap((service) =>
    Array.from({ length: replicas(service, values) }, (_, i) => ({ service, replica: i + 1 })),
  );
  const children = wanted.map(({ service, replica }, i) => start(service, replica, FIRST_ADMIN_PORT + i));
  // Ctrl-C reaches the children by itself, as one group; a signal to this process alone is passed on.
  process.on("SIGINT", () => console.log("Stopping …"));
  process.on("SIGTERM", () => {
    for (const child of children) child.kill("SIGTERM");
  });
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 1;
}
