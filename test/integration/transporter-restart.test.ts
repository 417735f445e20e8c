import { setTimeout as delay } from "node:timers/promises";
import { eventually } from "../../testkit/eventually.ts";
import { type Rabbit, startRabbit } from "../../testkit/rabbitmq.ts";
import { Cluster, knows, names, work } from "../../testkit/transporter.ts";

let rabbit: Rabbit;
let cluster: Cluster;

beforeAll(async () => {
  rabbit = await startRabbit();
}, 300_000);

afterAll(() => rabbit.remove());

beforeEach(() => {
  cluster = new Cluster(rabbit.url);
});

afterEach(() => cluster.stop());

test("a restart of RabbitMQ under load fails no request", async () => {
  const [caller, a, b] = await Promise.all([
    cluster.start("caller", { works: false }),
    cluster.start("node.a"),
    cluster.start("node.b"),
  ]);
  await knows(caller, "node.a", "node.b");
  const calls: Promise<unknown>[] = [];
  let turn = 0;
  const load = setInterval(() => {
    const to = turn++ % 2 ? "node.a" : "node.b";
    calls.push(work(caller, { name: "r", to, ms: 50 }, 60_000));
  }, 20);

  await delay(500);
  await rabbit.restart();
  await eventually(() => [caller, a, b].every(({ transporter }) => transporter.alive));
  await delay(500);
  clearInterval(load);

  await expect(Promise.all(calls)).resolves.toHaveLength(calls.length);
  expect((await work(caller, { name: "after", to: "node.a" })).node).toBe("node.a");
  expect((await work(caller, { name: "after", to: "node.b" })).node).toBe("node.b");
}, 180_000);

test("all connections closed by an operator fail no request", async () => {
  const [caller, a] = await Promise.all([
    cluster.start("caller", { works: false }),
    cluster.start("node.a"),
    cluster.start("node.b"),
  ]);
  await knows(caller, "node.a", "node.b");
  const calls = Array.from({ length: 10 }, () => work(caller, { name: "r", to: "node.a", ms: 3000 }, 15_000));
  await eventually(() => a.began.length === 10);
  expect(await rabbit.ctl("list_connections", "client_properties")).toContain("node.a");
  await rabbit.ctl("close_all_connections", "--vhost", "/", "maintenance");

  await expect(Promise.all(calls)).resolves.toHaveLength(10);
  expect(caller.log.join()).toContain("maintenance");
}, 120_000);

test("while RabbitMQ blocks the connection, requests wait, and then are answered", async () => {
  const [caller] = await Promise.all([cluster.start("caller", { works: false }), cluster.start("node.a")]);
  await knows(caller, "node.a");
  await rabbit.ctl("set_vm_memory_high_watermark", "0");
  // RabbitMQ blocks a connection at its first attempt to publish.
  const calls = Array.from({ length: 10 }, (_, i) => work(caller, { name: `r-${i}` }, 30_000));
  await eventually(() => caller.log.some((line) => line.includes("blocks this connection")));
  calls.push(work(caller, { name: "later" }, 30_000));
  await rabbit.ctl("set_vm_memory_high_watermark", "0.4");

  await expect(Promise.all(calls)).resolves.toHaveLength(11);
}, 120_000);

test("a request refused by a full shared queue is answered with QUEUE_FULL", async () => {
  // An operator's policy may make queues shorter; the smaller bound counts.
  const queues = `^MOL-${cluster.namespace}\\..*\\.REQ`;
  await rabbit.ctl("set_policy", "short", queues, '{"max-length":3}', "--apply-to", "queues");
  const options = { prefetch: 1, stealAfterMs: 200 };
  const node = await cluster.start("node.a", { options });
  const caller = await cluster.start("caller", { works: false, options });
  await knows(caller, "node.a");
  const begun = performance.now();
  const outcomes = await Promise.all(
    names("r", 14).map((name) =>
      work(caller, { name, ms: 1000 }, 20_000).then(
        () => "answered",
        (error: { type: string }) => `${error.type} ${performance.now() - begun < 1000 ? "soon" : "late"}`,
      ),
    ),
  );

  expect(new Set(outcomes)).toEqual(new Set(["answered", "QUEUE_FULL soon"]));
  expect(node.began).toHaveLength(outcomes.filter((each) => each === "answered").length);
});

test("a request larger than RabbitMQ takes is refused, and costs the others nothing", async () => {
  // This transporter believes that RabbitMQ takes more than it does.
  const options = { maxMessageBytes: 64 * 1024 * 1024 };
  const [caller] = await Promise.all([
    cluster.start("caller", { works: false, options }),
    cluster.start("node.a"),
  ]);
  await knows(caller, "node.a");
  const others = names("r", 10).map((name) => work(caller, { name, ms: 300 }, 20_000));
  const large = work(caller, { name: "x".repeat(17 * 1024 * 1024) }, 20_000);

  await expect(large).rejects.toMatchObject({ type: "PAYLOAD_TOO_LARGE", code: 413 });
  await expect(Promise.all(others)).resolves.toHaveLength(10);
  await expect(work(caller, { name: "x".repeat(17 * 1024 * 1024) })).rejects.toMatchObject({ code: 413 });
}, 120_000);

test("a node that drains while RabbitMQ is away delivers what it has done, once it is back", async () => {
  const [caller, a] = await Promise.all([cluster.start("caller", { works: false }), cluster.start("node.a")]);
  await knows(caller, "node.a");
  const calls = names("r", 5).map((name) => work(caller, { name, ms: 1500 }, 60_000));
  await eventually(() => a.began.length === 5);
  await rabbit.stop();
  await eventually(() => !a.transporter.alive);
  let drained = false;
  const draining = a.transporter.drain().then(() => {
    drained = true;
  });
  await delay(2500);
  expect(drained).toBe(false);
  await rabbit.start();
  await draining;
  await a.broker.stop();

  await expect(Promise.all(calls)).resolves.toHaveLength(5);
  expect(a.began).toHaveLength(5);
}, 180_000);
