import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { type Channel, type ChannelModel, connect } from "amqplib";
import sharp from "sharp";
import { eventually } from "../../testkit/eventually.ts";
import { type Rabbit, startRabbit } from "../../testkit/rabbitmq.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";

const ROOT = resolve(import.meta.dirname, "../..");
const PREFIX = "MOL-dl.v2";

/** The commands of SECURITY.md, as the shell runs them. */
function commands(): string[][] {
  const text = readFileSync(join(ROOT, "SECURITY.md"), "utf8");
  const script = /<!-- rabbitmq -->\n```sh\n([\s\S]*?)```/.exec(text)?.[1] ?? "";
  const folder = mkdtempSync(join(tmpdir(), "commands-"));
  try {
    const fake = 'printf "%s\\n" "$@"; echo';
    writeFileSync(join(folder, "rabbitmqctl"), `#!/bin/sh\n${fake}\n`, { mode: 0o755 });
    const passwords = ["GATEWAY", "DISPATCHER", "CAT", "DOG"].map((role) => [`${role}_PASSWORD`, "s3cret"]);
    const env = { PATH: `${folder}:${process.env["PATH"]}`, ...Object.fromEntries(passwords) };
    const said = execFileSync("sh", ["-eu"], { input: script, env, encoding: "utf8" });
    return said
      .trim()
      .split("\n\n")
      .map((command) => command.split("\n"));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

let rabbit: Rabbit;
const servers: TestServer[] = [];
const connections: ChannelModel[] = [];

const urlOf = (role: string, vhost = "dl") => {
  const { port } = new URL(rabbit.url);
  return `amqp://dl-${role}:s3cret@127.0.0.1:${port}/${vhost}`;
};

/** What RabbitMQ says to something that a role tries. */
async function tried(role: string, what: (channel: Channel) => Promise<unknown>): Promise<string> {
  const connection = await connect(urlOf(role));
  connections.push(connection);
  connection.on("error", () => {});
  const channel = await connection.createChannel();
  const refused = once(channel, "error").then(([error]) => (error as Error).message);
  try {
    await what(channel);
    // A publish has no answer of its own; this one comes after it.
    await Promise.race([channel.checkExchange(`${PREFIX}.REQS`), refused]);
    return "allowed";
  } catch (error) {
    return /ACCESS_REFUSED/.test((error as Error).message) ? "refused" : String(error);
  }
}

beforeAll(async () => {
  rabbit = await startRabbit();
  for (const command of commands()) await rabbit.ctl(...command);
  const start = (role: string) =>
    startServer({ SERVICES: role, TRANSPORTER: urlOf(role), CACHE_TTL_MS: "0", ENGINE_THREADS: "1" });
  servers.push(...(await Promise.all(["gateway", "dispatcher", "resnet-cat"].map(start))));
}, 300_000);

afterAll(async () => {
  await Promise.all(connections.map((connection) => connection.close().catch(() => {})));
  await Promise.all(servers.map((server) => server.stop()));
  await rabbit?.remove();
}, 60_000);

describe("with RabbitMQ users of least permissions", () => {
  test("a cluster serves", async () => {
    const url = servers[0]?.url ?? "";
    const body = await sharp({ create: { width: 90, height: 60, channels: 3, background: "plum" } })
      .png()
      .toBuffer();
    await eventually(async () => {
      const response = await fetch(`${url}/api/classify`, {
        method: "POST",
        headers: { "content-type": "image/png" },
        body: new Uint8Array(body),
      });
      const { results } = (await response.json()) as { results?: Record<string, { answer?: boolean }> };
      return typeof results?.["resnet-cat"]?.answer === "boolean";
    }, 30_000);
    for (const server of servers) expect(server.log()).not.toMatch(/ACCESS_REFUSED|s3cret/);
  }, 60_000);

  const queue = (name: string) => (channel: Channel) => channel.assertQueue(`${PREFIX}.${name}`);
  const reads = (name: string) => (channel: Channel) => channel.consume(`${PREFIX}.${name}`, () => {});
  const asks = (key: string) => async (channel: Channel) =>
    channel.publish(`${PREFIX}.REQX`, key, Buffer.from("x"));
  const SHARED = "REQS.dispatcher%2Epredict";

  test.each([
    ["gateway", "reads what a dispatcher is asked", reads(SHARED)],
    ["resnet-cat", "reads what a dispatcher is asked", reads(SHARED)],
    ["resnet-cat", "makes a queue of another role", queue("REQS.resnet-dog%2Epredict")],
    ["resnet-cat", "poses as a dispatcher", queue("NODE.dispatcher-1%40x")],
    ["resnet-cat", "makes a queue of no role", queue("MINE")],
    ["gateway", "asks a model", asks("resnet-cat-1%40x.resnet-cat%2Epredict")],
    ["resnet-cat", "asks a dispatcher", asks("dispatcher-1%40x.dispatcher%2Epredict")],
  ])("%s that %s is refused", async (role, _, what) => {
    expect(await tried(role, what)).toBe("refused");
  });

  test("another virtual host is refused", async () => {
    await expect(connect(urlOf("gateway", "%2F"))).rejects.toThrow(/ConnectionClose|NOT_ALLOWED/);
  });
});
