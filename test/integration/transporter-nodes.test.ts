import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { eventually } from "../../testkit/eventually.ts";
import { type Cluster, type Done, forEachTest, knows, names, work } from "../../testkit/transporter.ts";
import { listDeadLetters } from "../../transporters/dead-letters.ts";

/** Milliseconds that losing a node may cost a request. */
const PENALTY_MS = 1500;

let cluster: Cluster;
let ended: boolean;

// Before its cluster stops.
afterEach(() => {
  ended = true;
});

forEachTest((its) => {
  ended = false;
  cluster = its;
});

test("requests in the hands of a killed node are answered by another, within the penalty", async () => {
  const [caller, a] = await Promise.all([
    cluster.start("caller", { works: false }),
    cluster.fork("node.a"),
    cluster.fork("node.b"),
  ]);
  await knows(caller, "node.a", "node.b");
  const slowest = { ms: 0 };
  const call = async (name: string): Promise<Done> => {
    const begun = performance.now();
    const done = await work(caller, { name, to: "node.a", ms: 100 });
    slowest.ms = Math.max(slowest.ms, performance.now() - begun);
    return done;
  };
  const calls: Promise<Done>[] = [];
  for (const name of names("r", 60)) {
    calls.push(call(name));
    if (calls.length === 30) a.kill("SIGKILL");
    await delay(20);
  }

  const done = await Promise.all(calls);
  expect(done.map(({ name }) => name)).toEqual(names("r", 60));
  expect(new Set(done.map(({ node }) => node))).toEqual(new Set(["node.a", "node.b"]));
  expect(slowest.ms).toBeLessThan(PENALTY_MS);
}, 60_000);

test("requests in the hands of a stopped process are answered by another before their deadline", async () => {
  const options = { heartbeatSeconds: 1 };
  const [caller, a] = await Promise.all([
    cluster.start("caller", { works: false }),
    cluster.fork("node.a", options),
    cluster.fork("node.b", options),
  ]);
  await knows(caller, "node.a", "node.b");
  const calls = names("r", 8).map((name) => work(caller, { name, to: "node.a", ms: 200 }, 10_000));
  await delay(100);
  a.kill("SIGSTOP");

  const done = await Promise.all(calls);
  expect(done.map(({ name }) => name)).toEqual(names("r", 8));
  a.kill("SIGCONT");
  await eventually(async () => (await work(caller, { name: "again", to: "node.a" })).node === "node.a");
}, 60_000);

test("poison ends in an error after a few attempts, everything beside it is answered", async () => {
  const began: string[] = [];
  const caller = await cluster.start("caller", { works: false });
  // A supervisor that starts dead nodes again, as Kubernetes would.
  const supervise = async (nodeID: string) => {
    while (!ended) {
      const child = await cluster.fork(nodeID, {}, began);
      if (child.exitCode === null) await once(child, "exit");
    }
  };
  for (const nodeID of ["node.a", "node.b", "node.c"]) void supervise(nodeID);
  await knows(caller, "node.a", "node.b", "node.c");

  const innocents = names("innocent", 20).map((name, i) =>
    work(caller, { name, to: `node.${"abc"[i % 3]}`, ms: 200 }, 25_000),
  );
  const poison = work(caller, { name: "poison", to: "node.a", poison: true }, 25_000);

  await expect(poison).rejects.toMatchObject({ type: "POISON_REQUEST", code: 500, retryable: false });
  expect((await Promise.all(innocents)).map(({ name }) => name)).toEqual(names("innocent", 20));
  expect(began.filter((name) => name === "poison").length).toBeLessThanOrEqual(6);
  const letters = await eventually(async () => {
    const found = await listDeadLetters(caller.transporter);
    return found.length > 0 && found;
  });
  expect(letters).toEqual([
    expect.objectContaining({ action: "work.do", sender: "caller", reason: "poison" }),
  ]);
}, 90_000);
