import { type ChildProcess, spawn } from "node:child_process";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { serviceFiles } from "./app.ts";
import { commandOptions, misused } from "./cli.ts";

/**
 * A whole cluster on this machine: a process for each replica of each service, over RabbitMQ.
 *
 *     npm run cluster -- --cat 2 --dog 1 --dispatcher 2
 *
 * Every file in `services/` runs once unless told otherwise; `--cat` is short for `--resnet-cat`.
 */
const ROOT = resolve(import.meta.dirname, "..");
const DEFAULT_TRANSPORTER = "amqp://guest:guest@127.0.0.1:5672";
const DEFAULT_PORT = 3000;
const FIRST_ADMIN_PORT = 9100;
const MOST = 64;

const services = [...serviceFiles([resolve(ROOT, "services")]).keys()];
const short = (name: string) => name.replace(/^resnet-/, "");
const USAGE = `
npm run cluster -- [--SERVICE COUNT …]

Runs a process for each replica of each service over RabbitMQ (TRANSPORTER, by default ${DEFAULT_TRANSPORTER}).
Each service runs once unless told otherwise, 0 to ${MOST} times; the second gateway listens on the port after PORT, …

${services.map((name) => `  --${short(name)} COUNT`).join("\n")}
`;

interface Replica {
  readonly name: string;
  readonly service: string;
  readonly port: number;
  readonly adminPort: number;
}

function replicas(): readonly Replica[] {
  const names = services.flatMap((name) => [name, short(name)]);
  const options = Object.fromEntries(names.map((name) => [name, { type: "string" as const }]));
  const values: Readonly<Record<string, unknown>> = commandOptions(USAGE, options);
  const firstPort = Number(process.env["PORT"] || DEFAULT_PORT);
  const firstAdminPort = Number(process.env["ADMIN_PORT"] || FIRST_ADMIN_PORT);
  const wanted = services.flatMap((service) => {
    const value = values[service] ?? values[short(service)] ?? "1";
    const count = Number(value);
    if (!Number.isInteger(count) || count < 0 || count > MOST) {
      misused(`Expected --${short(service)} to be a whole number from 0 to ${MOST} but received "${value}"`);
    }
    return Array.from({ length: count }, (_, index) => ({ service, index }));
  });
  return wanted.map(({ service, index }, place) => ({
    name: `${service}-${index + 1}`,
    service,
    // 0 is any port for HTTP, and none for health and metrics.
    port: firstPort === 0 ? 0 : firstPort + index,
    adminPort: firstAdminPort === 0 ? 0 : firstAdminPort + place,
  }));
}

/** Starts a replica and prints its lines. */
function start({ name, service, port, adminPort }: Replica, onLine: (line: string) => void): ChildProcess {
  const child = spawn(process.execPath, [resolve(ROOT, "bin/start.ts")], {
    cwd: ROOT,
    env: {
      ...process.env,
      TRANSPORTER: process.env["TRANSPORTER"] || DEFAULT_TRANSPORTER,
      PORT: String(port),
      ADMIN_PORT: String(adminPort),
      SERVICES: service,
      NODE_ID: name,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const print = (line: string) => console.log(`${name.padEnd(14)} │ ${line}`);
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on("line", (line) => {
      print(line);
      onLine(line);
    });
  }
  child.on("exit", (code, signal) => print(`exited with ${signal ?? code}`));
  return child;
}

function main(): void {
  const wanted = replicas();
  const began = performance.now();
  const starting = new Set(wanted.map(({ name }) => name));
  const addresses: string[] = [];
  const children = wanted.map((replica) =>
    start(replica, (line) => {
      const [ready, address] = /Serving on (http:\S+)|Ready without HTTP/.exec(line) ?? [];
      if (address) addresses.push(address);
      if (!ready || !starting.delete(replica.name) || starting.size > 0) return;
      const seconds = ((performance.now() - began) / 1000).toFixed(1);
      const where = addresses.length > 0 ? `, ${addresses.sort().join(", ")}` : "";
      console.log(`The cluster is ready after ${seconds} s: ${wanted.length} processes${where}`);
    }),
  );
  let stopping = false;
  const stop = (signal: NodeJS.Signals) => {
    if (!stopping) console.log("Stopping …");
    stopping = true;
    // Ctrl-C reaches the children by itself, as one group; a signal to this process alone is passed on.
    if (signal === "SIGTERM") for (const child of children) child.kill(signal);
  };
  process.on("SIGINT", stop).on("SIGTERM", stop);
}

main();
