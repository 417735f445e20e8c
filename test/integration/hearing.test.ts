import type { Context } from "moleculer";
import { cancel } from "../../lib/request/cancellation.ts";
import { Scopes } from "../../middlewares/scopes.ts";
import { eventually } from "../../testkit/eventually.ts";
import { type Cluster, forEachTest, knows, work } from "../../testkit/transporter.ts";

let cluster: Cluster;

forEachTest((its) => {
  cluster = its;
});

test("a node that calls nobody hears of nobody, and is heard, called and missed all the same", async () => {
  const options = { hearsOthers: () => false };
  const [caller, a, b] = await Promise.all([
    cluster.start("caller", { works: false }),
    cluster.start("node.a", { options }),
    cluster.start("node.b", { options }),
  ]);
  const late = await cluster.start("late", { works: false });
  for (const each of [caller, late]) await knows(each, "node.a", "node.b");
  expect((await work(late, { name: "r", to: "node.b" })).node).toBe("node.b");
  for (const { broker } of [a, b]) {
    expect(broker.registry.nodes.toArray().map(({ id }: { id: string }) => id)).toEqual([broker.nodeID]);
  }
  await a.broker.stop();
  await eventually(() => !caller.broker.registry.nodes.get("node.a")?.available);
});

/** A caller that can cancel, two nodes of one request at a time, and what these hear of cancellations. */
async function listening() {
  const heard: string[] = [];
  const options = { prefetch: 1, stealAfterMs: 200 };
  const [caller, a, b] = await Promise.all([
    cluster.start("caller", { works: false, broker: { middlewares: [Scopes() as never] } }),
    cluster.start("node.a", { options }),
    cluster.start("node.b", { options }),
  ]);
  for (const { broker } of [a, b]) {
    broker.createService({
      name: `listener-${broker.nodeID.replace(".", "-")}`,
      events: {
        "inference.cancel"(ctx: Context<{ cancelId: string }>) {
          heard.push(`${broker.nodeID} ${ctx.params.cancelId}`);
        },
      },
    });
  }
  await knows(caller, "node.a", "node.b");
  return { caller, a, b, heard };
}

test("a cancelled request is cancelled on the node that was asked, and no other hears of it", async () => {
  const { caller, b, heard } = await listening();
  const call = caller.broker.call(
    "work.do",
    { name: "r", to: "node.b", ms: 500 },
    { meta: { cancelId: "c-1" }, timeout: 8000 },
  );
  await eventually(() => b.began.length === 1);
  cancel(caller.broker, "c-1");
  await call;
  cancel(caller.broker, "c-1");
  await eventually(() => heard.length > 0);
  expect(heard).toEqual(["node.b c-1"]);
});

test("a cancellation goes to the node that has taken the request over", async () => {
  const { caller, a, b, heard } = await listening();
  const busy = work(caller, { name: "busy", to: "node.a", ms: 5000 }, 20_000);
  await eventually(() => a.began.length === 1);
  const call = caller.broker.call(
    "work.do",
    { name: "r", to: "node.a", ms: 2000 },
    { meta: { cancelId: "c-1" }, timeout: 20_000 },
  );
  await eventually(() => b.began.length === 1);
  // The caller hears of it while the other works.
  await eventually(() => {
    cancel(caller.broker, "c-1");
    return heard.includes("node.b c-1");
  });
  await Promise.all([busy, call]);
});

test("a request that is cancelled while no node has it is cancelled on the one that takes it", async () => {
  const { caller, a, b, heard } = await listening();
  const busy = [
    work(caller, { name: "busy", to: "node.a", ms: 9000 }, 20_000),
    work(caller, { name: "busy", to: "node.b", ms: 2000 }, 20_000),
  ];
  await eventually(() => a.began.length + b.began.length === 2);
  const call = caller.broker.call(
    "work.do",
    { name: "r", to: "node.a" },
    { meta: { cancelId: "c-1" }, timeout: 20_000 },
  );
  cancel(caller.broker, "c-1");
  await eventually(() => b.began.includes("r"), 20_000);
  await eventually(() => heard.includes("node.b c-1"));
  expect(heard).toEqual(["node.a c-1", "node.b c-1"]);
  await Promise.all([...busy, call]);
});
