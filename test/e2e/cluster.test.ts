import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { resolve } from "node:path";
import sharp from "sharp";
import { routeOf } from "../../lib/models/identity.ts";
import { identityOf, readManifest } from "../../lib/models/manifest.ts";
import { eventually } from "../../testkit/eventually.ts";
import { brokerUrl, deleteNamespace, releaseBroker } from "../../testkit/rabbitmq.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";
import { type TlsProxy, tlsProxy } from "../../testkit/tls-proxy.ts";

const ROOT = resolve(import.meta.dirname, "../..");
/** A node whose wall clock is ten seconds ahead. */
const AHEAD = `--import=data:text/javascript,${encodeURIComponent("const now = Date.now; Date.now = () => now() + 10_000;")}`;

const servers: TestServer[] = [];
const nodeIDs: string[] = [];
let transporter: string;
const namespace = `cluster-test-${process.pid}`;

async function start(services: string, env: Record<string, string> = {}): Promise<TestServer> {
  const nodeID = env["NODE_ID"] ?? `${services}-${nodeIDs.length}`;
  nodeIDs.push(nodeID);
  const server = await startServer({
    SERVICES: services,
    NODE_ID: nodeID,
    TRANSPORTER: transporter,
    NAMESPACE: namespace,
    CACHE_TTL_MS: "0",
    ENGINE_THREADS: "1",
    ...env,
  });
  servers.push(server);
  return server;
}

const image = sharp({ create: { width: 200, height: 150, channels: 3, background: "teal" } })
  .jpeg()
  .toBuffer();

async function ask(url: string, models = "resnet-cat") {
  const response = await fetch(`${url}/api/classify?models=${models}`, {
    method: "POST",
    headers: { "content-type": "image/jpeg" },
    body: new Uint8Array(await image),
  });
  return { status: response.status, body: (await response.json()) as Record<string, Record<string, never>> };
}

const ROUTE = routeOf(identityOf(readManifest("models/pets-resnet/1")));
const ACTIONS = ["dispatcher.ask", "resnet-cat.predict", `${ROUTE}.resnet-cat.predict`];
/** Deletes what a namespace left in RabbitMQ. */
const forget = (name: string) => deleteNamespace(name, transporter, ACTIONS);

const modelsAt = async (url: string) =>
  ((await (await fetch(`${url}/api/models`)).json()) as { models: { name: string; replicas: string[] }[] })
    .models;

beforeAll(async () => {
  transporter = await brokerUrl();
}, 120_000);

afterAll(async () => {
  await Promise.all(servers.map((server) => server.stop()));
  await forget(namespace);
  await releaseBroker();
}, 60_000);

describe("roles as processes over RabbitMQ", () => {
  let url: string;
  let leaving: TestServer | undefined;

  beforeAll(async () => {
    const [gateway, , , ahead] = await Promise.all([
      start("gateway"),
      start("dispatcher"),
      start("resnet-cat"),
      start("resnet-cat", { NODE_ID: "cat-ahead", NODE_OPTIONS: AHEAD }),
    ]);
    url = gateway?.url ?? "";
    leaving = ahead;
    await eventually(async () => (await modelsAt(url)).some(({ replicas }) => replicas.length === 2), 30_000);
  }, 180_000);

  test("answer as one, from every replica, one of them with another wall clock", async () => {
    const nodes = new Set<string>();
    await eventually(async () => {
      // At once: one after the other would all go to whichever node is the least bit better.
      for (const { status, body } of await Promise.all(Array.from({ length: 8 }, () => ask(url)))) {
        expect(status).toBe(200);
        nodes.add(String(body["results"]?.["resnet-cat"]?.["node"]));
      }
      return nodes.size === 2;
    }, 30_000);
    expect(nodes).toContain("cat-ahead");
  }, 60_000);

  test("a model that is not there is unknown until its process joins, without a restart of others", async () => {
    expect((await ask(url, "resnet-dog")).status).toBe(404);
    await start("resnet-dog");
    await eventually(async () => (await ask(url, "resnet-dog")).status === 200, 30_000);
  }, 90_000);

  test("another namespace on the same RabbitMQ sees nothing of it", async () => {
    const stranger = await start("gateway", { NAMESPACE: `${namespace}-other`, NODE_ID: "stranger" });
    expect(await modelsAt(stranger.url)).toEqual([]);
    await stranger.stop();
    await forget(`${namespace}-other`);
  }, 60_000);

  test("a process that ends at SIGTERM leaves its model to the others", async () => {
    await leaving?.stop();
    for (let i = 0; i < 5; i++) expect((await ask(url)).status).toBe(200);
    await eventually(async () => {
      const cat = (await modelsAt(url)).find(({ name }) => name === "resnet-cat");
      return cat?.replicas.length === 1;
    });
  }, 60_000);
});

describe("over TLS", () => {
  let proxy: TlsProxy;
  let secure: string;

  beforeAll(async () => {
    const { hostname, port, username, password } = new URL(transporter);
    proxy = await tlsProxy({ host: hostname, port: Number(port) });
    secure = `amqps://${username}:${password}@localhost:${proxy.port}`;
  }, 120_000);

  afterAll(() => proxy.close());

  test("a cluster works whose certificate authority Node was told of", async () => {
    const env = { TRANSPORTER: secure, NODE_EXTRA_CA_CERTS: proxy.ca, NAMESPACE: `${namespace}-tls` };
    const [gateway] = await Promise.all(["gateway", "dispatcher,resnet-cat"].map((each) => start(each, env)));
    await eventually(async () => (await modelsAt(gateway?.url ?? "")).length === 1);
    const { status, body } = await ask(gateway?.url ?? "");
    expect([status, body["results"]?.["resnet-cat"]]).toMatchObject([200, { answer: expect.any(Boolean) }]);
    expect(proxy.accepted()).toBe(2);
    await Promise.all(servers.splice(-2).map((server) => server.stop()));
    await forget(`${namespace}-tls`);
  }, 60_000);

  test("a certificate that nobody vouches for is named, and the node goes on trying", async () => {
    const before = proxy.accepted();
    const child = spawn(process.execPath, ["bin/start.ts"], {
      cwd: ROOT,
      env: { PATH: process.env["PATH"], SERVICES: "dispatcher", TRANSPORTER: secure, NAMESPACE: namespace },
    });
    let text = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk: Buffer) => {
        text += chunk.toString();
      });
    try {
      await eventually(() => /trying again.*self-signed certificate/.test(text), 20_000);
      expect(child.exitCode).toBeNull();
      expect(text).not.toContain("Ready");
      expect(proxy.accepted()).toBe(before);
    } finally {
      child.kill("SIGKILL");
    }
  }, 60_000);
});

describe("npm run cluster", () => {
  test("says when and where the cluster is ready, and ends it at SIGTERM", async () => {
    const own = `${namespace}-command`;
    const child = spawn("npm", ["run", "--silent", "cluster", "--", "--dog", "0"], {
      cwd: ROOT,
      env: {
        PATH: process.env["PATH"],
        HOME: process.env["HOME"],
        TRANSPORTER: transporter,
        NAMESPACE: own,
        HOST: "127.0.0.1",
        PORT: "0",
        ADMIN_PORT: "0",
      },
      detached: true,
    });
    let text = "";
    child.stdout.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    try {
      await eventually(() => text.includes("The cluster is ready"), 60_000);
      const [, url = ""] = /^The cluster is ready after [\d.]+ s: 3 processes, (http:\S+)$/m.exec(text) ?? [];
      expect((await fetch(`${url}/health/ready`)).status).toBe(200);
      expect((await ask(url)).status).toBe(200);
      const exited = once(child, "exit");
      child.kill("SIGTERM");
      await exited;
      await eventually(() => (text.match(/exited with 0/g) ?? []).length === 3, 30_000);
    } finally {
      try {
        process.kill(-(child.pid ?? 0), "SIGKILL");
      } catch {
        // All have ended, as they should.
      }
      nodeIDs.push("gateway-1", "dispatcher-1", "resnet-cat-1");
      await forget(own);
    }
  }, 120_000);
});

test("a REPL joins a cluster without a service of its own", async () => {
  const own = `${namespace}-repl`;
  const server = await start("gateway,dispatcher,resnet-cat", { NAMESPACE: own });
  const repl = spawn(process.execPath, ["bin/repl.ts"], {
    cwd: ROOT,
    env: {
      PATH: process.env["PATH"],
      HOME: process.env["HOME"],
      TRANSPORTER: transporter,
      NAMESPACE: own,
      NODE_ID: "visitor",
      NO_COLOR: "1",
    },
  });
  nodeIDs.push("visitor");
  let text = "";
  repl.stdout.on("data", (chunk: Buffer) => {
    text += chunk.toString();
  });
  try {
    await eventually(() => text.includes("dl-lambda $"), 30_000);
    repl.stdin.write("models\n");
    await eventually(() => /'resnet-cat'.*'ready'/.test(text), 30_000);
    const [cat, ...others] = await modelsAt(server.url);
    expect([cat?.replicas, others]).toEqual([[nodeIDs.find((id) => id.startsWith("gateway,"))], []]);
    expect(text).not.toMatch(/Serving on|Model is warm/);
  } finally {
    repl.kill("SIGKILL");
    await server.stop();
    await forget(own);
  }
}, 120_000);

test("wrong credentials end the process, without the password in the log", () => {
  const address = new URL(transporter);
  address.password = "wr0ng-secret";
  const { status, stdout, stderr } = spawnSync(process.execPath, ["bin/start.ts"], {
    cwd: ROOT,
    env: {
      PATH: process.env["PATH"],
      SERVICES: "dispatcher",
      TRANSPORTER: address.href,
      NAMESPACE: namespace,
    },
    encoding: "utf8",
    timeout: 30_000,
  });
  expect(status).toBe(1);
  expect(stdout + stderr).toMatch(/refused this node/);
  expect(stdout + stderr).not.toContain("wr0ng-secret");
}, 60_000);
