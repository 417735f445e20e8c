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

test("a cancelled request is cancelled on the node that was asked, and no other hears of it", async () => {
  const heard: string[] = [];
  const listener = (node: string) => ({
    name: `listener-${node.replace(".", "-")}`,
    events: {
      "inference.cancel"(ctx: Context<{ cancelId: string }>) {
        heard.push(`${node} ${ctx.params.cancelId}`);
      },
    },
  });
  const [caller, a, b] = await Promise.all([
    cluster.start("caller", { works: false, broker: { middlewares: [Scopes() as never] } }),
    cluster.start("node.a"),
    cluster.start("node.b"),
  ]);
  a.broker.createService(listener("node.a"));
  b.broker.createService(listener("node.b"));
  await knows(caller, "node.a", "node.b");
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
