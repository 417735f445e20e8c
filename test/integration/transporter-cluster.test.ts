import { setTimeout as delay } from "node:timers/promises";
import { eventually } from "../../testkit/eventually.ts";
import { type Rabbit, startRabbitCluster } from "../../testkit/rabbitmq.ts";
import { Cluster, knows, names, work } from "../../testkit/transporter.ts";

let rabbits: Rabbit[];

beforeAll(async () => {
  rabbits = await startRabbitCluster(3);
}, 300_000);

afterAll(() => Promise.all(rabbits.map((rabbit) => rabbit.remove())));

test("a member that dies, and comes back, costs no request: its processes go on over the others", async () => {
  const [first, second, third] = rabbits as [Rabbit, Rabbit, Rabbit];
  const cluster = new Cluster(first.url);
  const over = (...order: Rabbit[]) => ({ url: order.map(({ url }) => url) });
  const [caller, a, b] = await Promise.all([
    cluster.start("caller", { works: false, options: over(first, second, third) }),
    cluster.start("node.a", { options: over(second, third, first) }),
    cluster.start("node.b", { options: over(third, first, second) }),
  ]);
  await knows(caller, "node.a", "node.b");
  const calls: Promise<unknown>[] = [];
  let turn = 0;
  const load = setInterval(() => {
    const to = turn++ % 2 ? "node.a" : "node.b";
    calls.push(work(caller, { name: "r", to, ms: 50 }, 20_000));
  }, 20);
  try {
    for (const member of [second, first]) {
      await delay(500);
      await member.kill();
      await delay(500);
      await eventually(() => [caller, a, b].every(({ transporter }) => transporter.alive), 60_000);
      await delay(500);
      await member.start();
    }
  } finally {
    clearInterval(load);
  }
  await expect(Promise.all(calls)).resolves.toHaveLength(calls.length);
  for (const to of ["node.a", "node.b"]) expect((await work(caller, { name: "after", to })).node).toBe(to);
  await cluster.stop();
}, 300_000);

test("processes that differ in every setting work together", async () => {
  const { url } = rabbits[2] as Rabbit;
  const cluster = new Cluster(url);
  const [caller] = await Promise.all([
    cluster.start("caller", { works: false, options: { stealAfterMs: 300, maxDeadlineMs: 30_000 } }),
    cluster.start("node.a", { options: { stealAfterMs: 700, maxDeadlineMs: 90_000, prefetch: 4 } }),
    cluster.start("node.b", { options: { stealAfterMs: 200, maxDeadlineMs: 1000, deadLetterTtlMs: 1000 } }),
  ]);
  await knows(caller, "node.a", "node.b");
  const done = await Promise.all(
    names("r", 12).map((name, i) => work(caller, { name, to: i % 2 ? "node.a" : "node.b", ms: 300 })),
  );
  expect(done).toHaveLength(12);
  await cluster.stop();
}, 120_000);
