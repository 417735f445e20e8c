import { hostname } from "node:os";
import { run } from "./run.ts";

/**
 * The REPL: on its own it starts all services; with `TRANSPORTER` it joins that cluster and hosts none, unless
 * `SERVICES` names some.
 */
const { TRANSPORTER, SERVICES, NODE_ID } = process.env;
const joins = Boolean(TRANSPORTER) && !SERVICES;
if (joins) process.env["NODE_ID"] = NODE_ID || `repl-${hostname()}-${process.pid}`;

if (isInstalled("moleculer-repl")) {
  const broker = await run(joins ? [] : undefined);
  broker?.repl();
} else {
  console.error("The REPL needs moleculer-repl, which `npm ci` installs (without --omit=dev).");
  process.exitCode = 1;
}

function isInstalled(name: string): boolean {
  try {
    import.meta.resolve(name);
    return true;
  } catch {
    return false;
  }
}
