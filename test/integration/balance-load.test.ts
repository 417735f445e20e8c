import { setTimeout as delay } from "node:timers/promises";
import { type Context, ServiceBroker } from "moleculer";
import { QueueFullError } from "../../lib/errors.ts";
import { loadOf } from "../../lib/load/load.ts";
import { drain } from "../../middlewares/health.ts";
import { Load } from "../../middlewares/load.ts";
import { LoadAwareStrategy } from "../../strategies/load-aware.ts";

/** Two brokers of this process over Moleculer's in-memory transporter: what the load middleware sees and tells. */
const NAMESPACE = `load-${process.pid}`;

function broker(nodeID: string): ServiceBroker {
  return new ServiceBroker({
    nodeID,
    namespace: NAMESPACE,
    logger: false,
    transporter: "Fake",
    requestTimeout: 100,
    heartbeatInterval: 1,
    registry: { strategy: LoadAwareStrategy, preferLocal: false },
    middlewares: [Load()],
  });
}

let caller: ServiceBroker;
let server: ServiceBroker;
let open: PromiseWithResolvers<string>[];

const known = () => loadOf(caller).table.get("server");

async function eventually(isSo: () => boolean): Promise<void> {
  while (!isSo()) await delay(5);
}

beforeEach(async () => {
  open = [];
  caller = broker("caller");
  server = broker("server");
  server.createService({
    name: "model",
    actions: {
      held() {
        const answer = Promise.withResolvers<string>();
        open.push(answer);
        return answer.promise;
      },
      full() {
        throw new QueueFullError("model", 1);
      },
      wrong() {
        throw new Error("wrong");
      },
      nested: (ctx: Context) => ctx.call("model.held"),
    },
  });
  await Promise.all([caller.start(), server.start()]);
  await caller.waitForServices("model");
});

afterEach(async () => {
  for (const { resolve } of open) resolve("late");
  await Promise.all([caller.stop(), server.stop()]);
});

test("heartbeats carry the load: measured figures, work at hand, and the queues that services register", async () => {
  loadOf(server).registerQueue("model", () => ({ queued: 7, inFlight: 3 }));
  await eventually(() => known()?.report?.queued === 7);
  expect(known()?.report).toMatchObject({ inFlight: 3, draining: false });
  expect(known()?.report?.memory).toBeGreaterThan(0);
  expect(known()?.backlog).toBe(10);
});

test("a request counts for its node until it is answered", async () => {
  const answer = caller.call("model.held");
  await eventually(() => open.length === 1);
  expect(known()?.inFlight).toBe(1);
  expect(loadOf(server).report(false).inFlight).toBe(1);
  open[0]?.resolve("done");
  await answer;
  expect(known()).toMatchObject({ inFlight: 0, misses: 0 });
  expect(loadOf(server).report(false).inFlight).toBe(0);
});

test("a request that timed out no longer counts, but is held against its node", async () => {
  await expect(caller.call("model.held")).rejects.toMatchObject({ type: "REQUEST_TIMEOUT" });
  await eventually(() => known()?.inFlight === 0);
  expect(known()?.misses).toBe(1);
});

test("a node that refuses is not taken for an idle one; one that fails is not blamed", async () => {
  await expect(caller.call("model.full")).rejects.toMatchObject({ code: 503 });
  expect(known()).toMatchObject({ inFlight: 0, misses: 1 });
  await expect(caller.call("model.wrong")).rejects.toThrow("wrong");
  expect(known()).toMatchObject({ inFlight: 0, misses: 1 });
});

test("a call to the node itself counts there as its own", async () => {
  const answer = server.call("model.nested");
  await eventually(() => open.length === 1);
  const { table } = loadOf(server);
  expect(table.get("server")?.inFlight).toBe(2);
  open[0]?.resolve("done");
  await answer;
  expect(table.get("server")?.inFlight).toBe(0);
});

test("a drain is told at once", async () => {
  await drain(server);
  await eventually(() => known()?.report?.draining === true);
});

test("no heartbeat goes out while the node disconnects", async () => {
  await eventually(() => known()?.report !== undefined);
  const sent = () => server.registry.discoverer.sendHeartbeat();
  Object.assign(server.transit ?? {}, { disconnecting: true });
  const before = known()?.reportedAt;
  await sent();
  await delay(20);
  expect(known()?.reportedAt).toBe(before);
  Object.assign(server.transit ?? {}, { disconnecting: false });
  await sent();
  await eventually(() => known()?.reportedAt !== before);
});

test("a node that leaves is forgotten", async () => {
  await server.stop();
  await eventually(() => known() === undefined);
});

test.each([
  ["from a stranger", { sender: "stranger", load: { cpu: 0 } }],
  ["with a load that is none", { sender: "server", load: "garbage" }],
])("a heartbeat %s changes no figure", async (_, payload) => {
  await eventually(() => known()?.report !== undefined);
  const packet = { type: "HEARTBEAT", target: null, payload: { ver: caller.PROTOCOL_VERSION, ...payload } };
  const before = known()?.report?.queued;
  await caller.transit?.messageHandler("HEARTBEAT", packet as never);
  expect(known()?.report?.queued).toBe(before);
  expect(loadOf(caller).table.get("stranger")).toBeUndefined();
});
