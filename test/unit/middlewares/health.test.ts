import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { ServiceBroker } from "moleculer";
import { healthOf } from "../../../lib/telemetry/health.ts";
import { answer, HealthChecks } from "../../../middlewares/health.ts";

/** What the admin server of this broker says, over real HTTP. */
async function ask(broker: ServiceBroker, path: string, init: RequestInit = {}) {
  const server = createServer((request, response) => answer(broker, request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const response = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}${path}`, init);
    return {
      status: response.status,
      type: response.headers.get("content-type"),
      text: await response.text(),
    };
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

function broker(): ServiceBroker {
  return new ServiceBroker({ nodeID: "node-1", logger: false, middlewares: [HealthChecks()] });
}

test("serves liveness, readiness and metrics", async () => {
  const node = broker();
  expect(await ask(node, "/health/live")).toMatchObject({
    status: 200,
    type: "application/json; charset=utf-8",
  });
  const ready = await ask(node, "/health/ready?verbose");
  expect(ready.status).toBe(503);
  expect(JSON.parse(ready.text)).toEqual({ node: "node-1", state: "starting", missing: ["starting"] });
  const metrics = await ask(node, "/metrics");
  expect(metrics).toMatchObject({ status: 200, type: "text/plain; version=0.0.4; charset=utf-8" });
  expect(metrics.text).toContain("# TYPE ");
});

test("answers HEAD without a body, other methods with 405 and other paths with 404", async () => {
  const node = broker();
  expect(await ask(node, "/health/live", { method: "HEAD" })).toMatchObject({ status: 200, text: "" });
  expect((await ask(node, "/health/live", { method: "POST" })).status).toBe(405);
  for (const path of ["/", "/health", "/health/liveness", "//health/live", "/metrics/.."]) {
    expect([path, (await ask(node, path)).status]).toEqual([path, 404]);
  }
});

test("a node is ready once its slowest service has started, drains while it stops, and then is stopped", async () => {
  const node = broker();
  const warm = Promise.withResolvers<void>();
  const stopping = Promise.withResolvers<void>();
  node.createService({ name: "model", started: () => warm.promise, stopped: () => stopping.promise });
  const started = node.start();
  expect(healthOf(node).state).toBe("starting");
  warm.resolve();
  await started;
  expect((await ask(node, "/health/ready")).status).toBe(200);
  const stopped = node.stop();
  stopping.resolve();
  await stopped;
  expect(healthOf(node).state).toBe("stopped");
  expect((await ask(node, "/health/live")).status).toBe(503);
});

test("a service that is added later makes the node unready until it has started", async () => {
  const node = broker();
  await node.start();
  const warm = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  node.createService({
    name: "late-model",
    started() {
      begun.resolve();
      return warm.promise;
    },
  });
  await begun.promise;
  expect(JSON.parse((await ask(node, "/health/ready")).text).missing).toEqual(["service late-model"]);
  warm.resolve();
  await node.waitForServices("late-model");
  while (healthOf(node).pending.length > 0) await new Promise((resolve) => setImmediate(resolve));
  expect((await ask(node, "/health/ready")).status).toBe(200);
  await node.stop();
});
