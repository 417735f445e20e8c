import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { type AmqplibConnection, connectWith } from "../../transporters/amqplib.ts";
import { settings } from "../../transporters/options.ts";
import type { Connect, Connection } from "../../transporters/ports.ts";
import { type Operation, type Script, type Seen, Stage, TIME_MS, WAIT_MS, writeScript } from "./scripts.ts";

/** For what must come to come, on a machine that is busy. */
const PATIENCE_MS = 3000;
const LOOK_MS = 5;
/** What expires while a script is under way shows another story. */
const TOO_SLOW_MS = TIME_MS - 500;
const ATTEMPTS = 5;
const MUST_DIFFER = 2;
const AT_ONCE = 4;

/** Where RabbitMQ does not do what the model does. */
export interface Difference {
  readonly seed: number;
  readonly operations: readonly Operation[];
  readonly model: Seen;
  readonly rabbit: Seen;
}

/**
 * Performs a script on a real RabbitMQ. What RabbitMQ always does counts: a channel that it closes may still get a
 * message for a moment, and such a difference does not come again. Known and left (script 153): RabbitMQ 3.10 lets a
 * consumer hold one message beyond its prefetch after one of its messages has come back too often.
 * @returns a difference to the model that came every time
 */
export async function compare(script: Script, url: string): Promise<Difference | undefined> {
  let difference: Difference | undefined;
  for (let [attempt, differences] = [1, 0]; differences < MUST_DIFFER; attempt++) {
    const outcome = await perform(script, url);
    if (outcome === undefined) return undefined;
    if (outcome === "slow") {
      if (attempt >= ATTEMPTS) throw new Error(`This machine is too busy for script ${script.seed}`);
      continue;
    }
    difference = outcome;
    differences++;
  }
  return difference;
}

/**
 * Performs scripts, given or by their seeds, several at a time: they wait more than they work.
 * @returns where RabbitMQ differs
 */
export async function compareAll(
  scripts: readonly (number | Script)[],
  url: string,
  stopAtFirst = false,
): Promise<Difference[]> {
  const differences: Difference[] = [];
  const left = [...scripts];
  const worker = async () => {
    for (let next = left.shift(); next !== undefined; next = left.shift()) {
      const script = typeof next === "number" ? await writeScript(next) : next;
      const difference = await compare(script, url);
      if (difference) differences.push(difference);
      if (difference && stopAtFirst) left.length = 0;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return differences;
}

async function perform(
  { seed, operations, seen }: Script,
  url: string,
): Promise<Difference | "slow" | undefined> {
  const connections = new Connections(url);
  const prefix = `script-${randomBytes(5).toString("hex")}`;
  const stage = new Stage(connections.connect, url, prefix, (connection) => connections.drop(connection));
  const timed = operations.some((operation) => operation.do === "wait");
  let waitedAt = performance.now();
  try {
    for (const [i, operation] of operations.entries()) {
      // What is refused closes the channel, which is seen.
      await stage.apply(operation).catch(() => {});
      if (operation.do === "wait") await sleep(WAIT_MS);
      const expected = seen[i] as Seen;
      const until = performance.now() + PATIENCE_MS;
      while (!isDeepStrictEqual(stage.seen, expected) && performance.now() < until) await sleep(LOOK_MS);
      const slow = timed && operation.do !== "wait" && performance.now() - waitedAt > TOO_SLOW_MS;
      if (!isDeepStrictEqual(stage.seen, expected)) {
        if (slow && performance.now() - waitedAt - PATIENCE_MS > TOO_SLOW_MS) return "slow";
        return { seed, operations: operations.slice(0, i + 1), model: expected, rabbit: stage.seen };
      }
      if (operation.do === "wait") waitedAt = performance.now();
      else if (slow && operation.do !== "end") return "slow";
    }
    return undefined;
  } finally {
    await stage.leave();
    await connections.end();
  }
}

/** Connections that can be broken off, each with a queue of its own whose end shows that RabbitMQ has noticed. */
class Connections {
  readonly #url: string;
  readonly #connect: Connect;
  readonly #signs = new Map<Connection, string>();
  #watcher: Connection | undefined;

  constructor(url: string) {
    this.#url = url;
    this.#connect = connectWith("script", settings({ url, heartbeatSeconds: 60 }));
  }

  readonly connect: Connect = async (url, events) => {
    const connection = await this.#connect(url, events);
    const sign = `sign-${randomBytes(5).toString("hex")}`;
    await (await connection.openChannel()).assertQueue(sign, { exclusive: true, durable: false });
    this.#signs.set(connection, sign);
    return connection;
  };

  async drop(connection: Connection): Promise<void> {
    // Not in amqplib's types.
    const { model } = connection as AmqplibConnection;
    (model.connection as unknown as { readonly stream: Socket }).stream.destroy(new Error("dropped"));
    this.#watcher ??= await this.#connect(this.#url, { closed() {}, blocked() {}, unblocked() {} });
    for (let reason = ""; !reason.includes("NOT_FOUND"); await sleep(LOOK_MS)) {
      const channel = await this.#watcher.openChannel();
      // Somebody else's, as long as there is somebody.
      reason = await channel.get(this.#signs.get(connection) ?? "").then(String, String);
    }
  }

  async end(): Promise<void> {
    await this.#watcher?.close();
  }
}

/** A difference as a story: what was done, and what was seen by whom. */
export function tellDifference({ seed, operations, model, rabbit }: Difference): string {
  const streams = [...new Set([...Object.keys(model), ...Object.keys(rabbit)])].filter(
    (stream) => !isDeepStrictEqual(model[stream], rabbit[stream]),
  );
  return [
    `Script ${seed}: RabbitMQ does something else than the model`,
    ...operations.map((operation) => `  ${JSON.stringify(operation)}`),
    ...streams.flatMap((stream) => [
      `  ${stream}`,
      `    model:    ${(model[stream] ?? []).join(" | ")}`,
      `    RabbitMQ: ${(rabbit[stream] ?? []).join(" | ")}`,
    ]),
  ].join("\n");
}
