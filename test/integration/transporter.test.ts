import { once } from "node:events";
import { createServer, connect as openSocket, type Server, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { connect, type Options } from "amqplib";
import { encode } from "cbor-x";
import { eventually } from "../../testkit/eventually.ts";
import {
  Cluster,
  closeChannel,
  cut,
  forEachTest,
  knows,
  type Member,
  modelOf,
  names,
  work,
} from "../../testkit/transporter.ts";
import { listDeadLetters, purgeDeadLetters } from "../../transporters/dead-letters.ts";
import { Topology } from "../../transporters/topology.ts";

let url: string;
let cluster: Cluster;

forEachTest((...its) => {
  [cluster, url] = its;
});

async function twoNodes(options = {}): Promise<[caller: Member, a: Member, b: Member]> {
  const members = await Promise.all([
    cluster.start("caller", { works: false }),
    cluster.start("node.a", { options }),
    cluster.start("node.b", { options }),
  ]);
  await knows(members[0], "node.a", "node.b");
  return members;
}

/** The queues of a member's own. */
function queuesOf({ transporter: { topology, seat } }: Member) {
  return { inbox: topology.inbox(seat).name, targeted: topology.targeted(seat, 500).name };
}

type Injection = readonly [queue: string, content: Buffer, options?: Options.Publish];

/** Publishes messages as they are to the cluster's queues. */
async function inject(...messages: Injection[]) {
  const connection = await connect(url);
  const channel = await connection.createConfirmChannel();
  for (const [queue, content, options] of messages) channel.sendToQueue(queue, content, options);
  await channel.waitForConfirms();
  await connection.close();
}

describe("routing", () => {
  test("a request runs on the node the strategy chose", async () => {
    const [caller, a, b] = await twoNodes();
    const wishes = names("request", 20).map((name, i) => ({ name, to: i % 3 ? "node.a" : "node.b" }));

    const done = await Promise.all(wishes.map((wish) => work(caller, wish)));

    expect(done.map(({ node }) => node)).toEqual(wishes.map(({ to }) => to));
    expect([...a.events, ...b.events]).toEqual([]);
  });

  test("a call for one node is answered by that node or not at all", async () => {
    const [caller, a, b] = await twoNodes({ prefetch: 1 });
    const busy = work(caller, { name: "busy", ms: 1500 }, 5000, "node.a");
    const waiting = work(caller, { name: "waiting" }, 5000, "node.a");

    expect((await waiting).node).toBe("node.a");
    expect((await busy).node).toBe("node.a");
    expect(a.began).toEqual(["busy", "waiting"]);
    expect(b.began).toEqual([]);
    const health = await caller.broker.call<object, object>("$node.health", {}, { nodeID: "node.b" });
    expect(health).toHaveProperty("cpu");
  });

  test("what a busy node does not take in time, another one does", async () => {
    const [caller, a, b] = await twoNodes({ prefetch: 1, stealAfterMs: 200 });
    const params = names("request", 3).map((name) => ({ name, to: "node.a", ms: 1000 }));

    const done = await Promise.all(params.map((each) => work(caller, each)));

    expect(done.map(({ node }) => node)).toContain("node.b");
    expect(b.events).toContain("stolen");
    expect([...a.began, ...b.began].toSorted()).toEqual(names("request", 3));
  });

  test("a busy node does not take back what left its queue because it is busy", async () => {
    const [caller, a, b] = await twoNodes({ prefetch: 4, stealAfterMs: 200 });
    const all = Promise.all(
      names("request", 8).map((name) => work(caller, { name, to: "node.a", ms: 1500 })),
    );

    await all;
    expect(a.began).toHaveLength(4);
    expect(b.began).toHaveLength(4);
    expect(a.events).not.toContain("stolen");
  });

  test("a node runs as many requests at once as its prefetch allows", async () => {
    const [caller, a] = await twoNodes({ prefetch: 16, stealAfterMs: 10_000 });

    const all = Promise.all(
      names("request", 16).map((name) => work(caller, { name, to: "node.a", ms: 500 })),
    );

    await eventually(() => a.transporter.inFlight === 16, 5000);
    await all;
  });

  test("a node whose prefetch shrinks pulls less, and loses nothing", async () => {
    const [caller, a] = await twoNodes({ prefetch: 16, stealAfterMs: 10_000 });
    const first = Promise.all(names("a", 4).map((name) => work(caller, { name, to: "node.a", ms: 300 })));
    await eventually(() => a.transporter.inFlight === 4);
    await a.transporter.setPrefetch(1);
    await first;

    let most = 0;
    const watch = setInterval(() => {
      most = Math.max(most, a.transporter.inFlight);
    }, 5);
    await Promise.all(names("b", 6).map((name) => work(caller, { name, to: "node.a", ms: 50 })));
    clearInterval(watch);

    expect(most).toBe(1);
    expect(a.began).toHaveLength(10);
    expect(() => a.transporter.setPrefetch(0)).toThrow(
      "Expected an integer of at least 1 for prefetch but received 0 of type number",
    );
  });

  test("namespaces do not see each other", async () => {
    const other = new Cluster(url);
    try {
      const [caller] = await twoNodes();
      const stranger = await other.start("node.c");
      await delay(1500);

      expect(caller.broker.registry.nodes.has("node.c")).toBe(false);
      expect(stranger.broker.registry.nodes.has("node.a")).toBe(false);
    } finally {
      await other.stop();
    }
  });

  test("a stream is refused, not torn between nodes", async () => {
    const [caller] = await twoNodes();
    const { Readable } = await import("node:stream");
    const call = caller.broker.call("work.do", {}, { stream: Readable.from(["x"]) } as object);

    await expect(call).rejects.toMatchObject({ type: "BAD_REQUEST" });
  });
});

describe("deadlines", () => {
  test("a request that expired in the chosen node's queue is not computed", async () => {
    const [caller, a, b] = await twoNodes({ prefetch: 1, stealAfterMs: 10_000 });
    const busy = work(caller, { name: "busy", to: "node.a", ms: 800 });
    const late = work(caller, { name: "late", to: "node.a" }, 300);

    await expect(late).rejects.toMatchObject({ type: "REQUEST_TIMEOUT" });
    await busy;
    await work(caller, { name: "next", to: "node.a" });

    expect(a.began).toEqual(["busy", "next"]);
    expect(b.began).toEqual([]);
  });

  test("a request that timed out does not hold up its caller's graceful stop", async () => {
    const [caller] = await twoNodes();
    await expect(work(caller, { name: "slow", ms: 1000 }, 100)).rejects.toMatchObject({
      type: "REQUEST_TIMEOUT",
    });
    const begun = performance.now();
    await caller.broker.stop();

    expect(performance.now() - begun).toBeLessThan(4000);
  });

  test("a request that outlived its deadline in the shared queue is not computed, though its expiry is gone", async () => {
    const node = await cluster.start("node.a", { options: { prefetch: 1, stealAfterMs: 100 } });
    const caller = await cluster.start("caller", { works: false });
    await knows(caller, "node.a");
    // One through the node's queue, one through the shared one: both consumers have their hands full.
    const busy = names("busy", 2).map((name) => work(caller, { name, ms: 1500 }));
    await eventually(() => node.began.length === 2);
    const late = work(caller, { name: "late" }, 600);

    await expect(late).rejects.toMatchObject({ type: "REQUEST_TIMEOUT" });
    await Promise.all(busy);
    await eventually(() => node.events.includes("expired"));
    await work(caller, { name: "next" });

    expect(node.began).toEqual(["busy-0", "busy-1", "next"]);
  });

  test("an action is told the time it has left", async () => {
    const [caller, a] = await twoNodes({ prefetch: 1, stealAfterMs: 10_000 });
    let left = 0;
    a.broker.createService({
      name: "clock",
      actions: {
        left: (ctx) => {
          left = ctx.options.timeout ?? 0;
        },
      },
    });
    await caller.broker.waitForServices("clock");
    const busy = work(caller, { name: "busy", to: "node.a", ms: 500 });
    await eventually(() => a.began.length === 1);
    await caller.broker.call("clock.left", { to: "node.a" }, { timeout: 5000 });
    await busy;

    expect(left).toBeGreaterThan(4000);
    expect(left).toBeLessThan(4700);
  });
});

describe("lost connections", () => {
  test("requests that run while their node's connection breaks are answered, and run once", async () => {
    const [caller, a] = await twoNodes();
    const all = Promise.all(names("r", 10).map((name) => work(caller, { name, to: "node.a", ms: 400 })));
    await eventually(() => a.began.length === 10);
    cut(a);

    expect((await all).map(({ name }) => name)).toEqual(names("r", 10));
    await eventually(() => a.transporter.alive);
    expect((await work(caller, { name: "next", to: "node.a" })).node).toBe("node.a");
    expect(a.began.toSorted()).toEqual([...names("r", 10), "next"].toSorted());
  });

  test("requests that wait for an answer while their caller's connection breaks are answered", async () => {
    const [caller, a] = await twoNodes();
    const all = Promise.all(names("r", 10).map((name) => work(caller, { name, to: "node.a", ms: 1500 })));
    await eventually(() => a.began.length === 10);
    cut(caller);

    expect((await all).map(({ name }) => name)).toEqual(names("r", 10));
    expect(caller.events).toContain("resent");
    expect(a.events).toContain("duplicate");
    expect(a.began).toHaveLength(10);
    expect(caller.transporter.pending).toBe(0);
  });

  test("a channel that closes alone is replaced, and the node says so meanwhile", async () => {
    const [caller, a] = await twoNodes();
    await closeChannel(a);
    await eventually(() => !a.transporter.alive);

    const done = await work(caller, { name: "after", to: "node.a" });

    expect(done.node).toMatch(/^node\./);
    await eventually(() => a.transporter.alive);
    expect((await work(caller, { name: "again", to: "node.a" })).node).toBe("node.a");
  });

  test("a consumer that RabbitMQ cancels is replaced", async () => {
    const [caller, a] = await twoNodes();
    const connection = await connect(url);
    const channel = await connection.createChannel();
    await channel.deleteQueue(queuesOf(a).targeted);
    await connection.close();
    await eventually(() => a.log.some((line) => line.includes("cancelled the consumer")));
    await eventually(() => a.transporter.alive);

    expect((await work(caller, { name: "after", to: "node.a" })).node).toBe("node.a");
  });

  test("without any queue for it, a request waits for a node until its deadline", async () => {
    const [caller, a, b] = await twoNodes();
    const connection = await connect(url);
    const channel = await connection.createChannel();
    await Promise.all([a.broker.stop(), b.broker.stop()]);
    const { topology } = caller.transporter;
    for (const queue of [queuesOf(a).targeted, queuesOf(b).targeted, topology.shared("work.do").name]) {
      await channel.deleteQueue(queue);
    }
    await connection.close();
    // The caller has not heard of it.
    const call = caller.transporter.transit.request(
      Object.assign(new caller.broker.ContextFactory(caller.broker), {
        nodeID: "node.a",
        action: { name: "work.do" },
        params: { name: "orphan" },
        options: { timeout: 10_000 },
      }),
    );
    await delay(700);
    await cluster.start("node.c");

    await expect(call).resolves.toMatchObject({ node: "node.c" });
  });
});

describe("RabbitMQ away", () => {
  /** A door to RabbitMQ that can be shut. */
  class Door {
    readonly #server: Server;
    readonly #sockets = new Set<Socket>();
    port = 0;

    constructor() {
      this.#server = createServer((socket) => {
        const { hostname, port } = new URL(url);
        const upstream = openSocket(Number(port || 5672), hostname);
        for (const each of [socket, upstream]) {
          this.#sockets.add(each);
          each.on("error", () => {});
          each.on("close", () => {
            this.#sockets.delete(each);
            socket.destroy();
            upstream.destroy();
          });
        }
        socket.pipe(upstream).pipe(socket);
      });
    }

    get url(): string {
      const address = new URL(url);
      address.host = `127.0.0.1:${this.port}`;
      return address.href;
    }

    async open() {
      this.#server.listen(this.port, "127.0.0.1");
      await once(this.#server, "listening");
      const address = this.#server.address();
      this.port = address && typeof address === "object" ? address.port : 0;
    }

    async shut() {
      this.#server.close();
      for (const socket of this.#sockets) socket.destroy();
      if (this.#server.listening) await once(this.#server, "close");
    }
  }

  const door = new Door();
  afterEach(() => door.shut());

  test("a node that starts before RabbitMQ says so and waits for it", async () => {
    await door.open();
    await door.shut();
    const node = cluster.create("node.a", { options: { url: [door.url, door.url] } });
    const started = node.broker.start();
    await eventually(() =>
      node.log.some((line) => line.includes("RabbitMQ cannot be reached, trying again")),
    );
    expect(node.transporter.alive).toBe(false);
    expect(node.log.join()).not.toContain("guest:guest");

    await door.open();
    await started;
    expect(node.transporter.alive).toBe(true);
  });

  test("an outage longer than the heartbeat time-out costs time, not requests", async () => {
    await door.open();
    const broker = { heartbeatInterval: 0.5, heartbeatTimeout: 1 };
    const caller = await cluster.start("caller", { works: false, broker, options: { url: door.url } });
    const node = await cluster.start("node.a", { broker, options: { url: door.url } });
    await knows(caller, "node.a");
    const before = names("before", 5).map((name) => work(caller, { name, ms: 500 }, 15_000));
    await eventually(() => node.began.length === 5);

    await door.shut();
    const during: Promise<unknown>[] = [];
    for (const name of names("during", 6)) {
      during.push(work(caller, { name }, 15_000));
      await delay(500);
    }
    expect(caller.transporter.alive).toBe(false);
    expect(caller.transporter.pending).toBe(11);
    await door.open();

    await Promise.all([...before, ...during]);
    expect(new Set(node.began)).toEqual(new Set([...names("before", 5), ...names("during", 6)]));
  });

  test("a full outbox refuses at once", async () => {
    const caller = await cluster.start("caller", { works: false, options: { maxPendingBytes: 5000 } });
    await cluster.start("node.a");
    await knows(caller, "node.a");
    modelOf(caller.transporter).emit("blocked", "low on memory");

    const calls = names("x".repeat(1000), 8).map((name) => work(caller, { name }));
    const refused = await Promise.all(
      calls.slice(4).map((call) => call.then(() => undefined).catch((error: { type: string }) => error.type)),
    );
    expect(refused).toEqual(["QUEUE_FULL", "QUEUE_FULL", "QUEUE_FULL", "QUEUE_FULL"]);

    modelOf(caller.transporter).emit("unblocked");
    await Promise.all(calls.slice(0, 4));
  });
});

describe("draining", () => {
  test("a node that drains answers what it has, and others take the rest", async () => {
    const [caller, a, b] = await twoNodes({ prefetch: 4 });
    const all = Promise.all(names("r", 8).map((name) => work(caller, { name, to: "node.a", ms: 700 })));
    await eventually(() => a.transporter.inFlight === 4);

    await a.transporter.drain();
    expect(a.transporter.inFlight).toBe(0);
    const mine = a.began.length;
    await all;
    await Promise.all(names("later", 4).map((name) => work(caller, { name, to: "node.a" })));

    expect(a.began).toHaveLength(mine);
    expect(b.began.filter((name) => name.startsWith("later"))).toHaveLength(4);
    expect(new Set([...a.began, ...b.began]).size).toBe(a.began.length + b.began.length);
  });

  test("a broker that stops under load fails no request", async () => {
    const [caller, a] = await twoNodes();
    const calls: Promise<unknown>[] = [];
    const load = setInterval(() => calls.push(work(caller, { name: "r", to: "node.a", ms: 50 })), 10);
    await eventually(() => a.began.length > 10);
    await a.broker.stop();
    await delay(300);
    clearInterval(load);

    await expect(Promise.all(calls)).resolves.toHaveLength(calls.length);
  });
});

describe("strange messages", () => {
  test("garbage, other serializers and other protocol versions are dropped, with a line for each kind", async () => {
    const [caller, a] = await twoNodes();
    const request = { messageId: "id", appId: "caller" };
    const headers = { action: "work.do", by: "x", at: 0, timeout: 60_000 };
    const payload = { ver: "5", sender: "caller", id: "id", action: "work.do", params: {}, meta: {} };
    const kinds: Injection[] = [
      [queuesOf(a).targeted, Buffer.from("garbage")],
      [queuesOf(a).targeted, Buffer.from(JSON.stringify(payload)), { ...request, headers }],
      [
        queuesOf(a).targeted,
        Buffer.from(encode({ ...payload, ver: "3" })),
        { ...request, messageId: "other", headers },
      ],
      [queuesOf(caller).inbox, Buffer.from("garbage"), { type: "RES" }],
      [
        queuesOf(caller).inbox,
        Buffer.from(encode({ ver: "5", sender: "node.a", id: "nobody", success: true })),
        { type: "RES" },
      ],
      [queuesOf(a).inbox, Buffer.from([0xff, 0x00]), { type: "HEARTBEAT" }],
      [queuesOf(a).inbox, Buffer.from("garbage")],
    ];
    await inject(...Array.from({ length: 20 }, () => kinds).flat());

    expect((await work(caller, { name: "after", to: "node.a" })).node).toBe("node.a");
    expect(a.began).toEqual(["after"]);
    expect(a.log.filter((line) => line.includes("is not a request"))).toHaveLength(1);
    expect(a.log.filter((line) => line.includes("another serializer"))).toHaveLength(1);
    expect(a.log.filter((line) => line.includes("another protocol version"))).toHaveLength(1);
    expect(a.log.length + caller.log.length).toBeLessThan(8);
  });

  test("a node next to queues of an older topology ends with the queue's name", async () => {
    const connection = await connect(url);
    const channel = await connection.createChannel();
    const queue = new Topology(`MOL-${cluster.namespace}`).deadLetters().name;
    await channel.assertQueue(queue, { messageTtl: 1, durable: true });
    await connection.close();

    const child = cluster.spawn("node.a");
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream?.on("data", (text) => (output += text));
    const [code] = await once(child, "exit");

    expect(code).toBe(1);
    expect(output).toContain("refused this node");
    expect(output).toContain(queue);
  });

  test("wrong credentials end the process with a clear line, and without the password", async () => {
    const wrong = new URL(url);
    wrong.password = "s3cret-and-wrong";
    const child = cluster.spawn("node.a", {}, wrong.href);
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream?.on("data", (text) => (output += text));
    const [code] = await once(child, "exit");

    expect(code).toBe(1);
    expect(output).toMatch(/RabbitMQ at amqp:\/\/127\.0\.0\.1:\d+ refused this node: .*ACCESS_REFUSED/);
    expect(output).not.toContain("s3cret");
  });
});

describe("dead letters", () => {
  test("are kept, can be looked at again and again, and be purged", async () => {
    const [caller, a, b] = await twoNodes();
    const headers = { action: "work.do", by: "x", at: 0, timeout: 60_000, attempts: 3 };
    const request = { messageId: "id", appId: "caller", headers };
    await inject([a.transporter.topology.shared("work.do").name, Buffer.from("poison"), request]);

    const letters = await eventually(async () => {
      const found = await listDeadLetters(a.transporter);
      return found.length === 1 && found;
    });
    expect(letters).toEqual([
      { id: "id", action: "work.do", sender: "caller", reason: "rejected", at: expect.any(Date), bytes: 6 },
    ]);
    expect(await listDeadLetters(a.transporter)).toEqual(letters);
    expect(await purgeDeadLetters(a.transporter)).toBe(1);
    expect(await listDeadLetters(a.transporter)).toEqual([]);
    expect([...caller.events, ...a.events, ...b.events].toSorted()).toEqual(["dead-lettered", "stolen"]);
  });
});
