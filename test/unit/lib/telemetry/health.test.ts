import { ServiceBroker } from "moleculer";
import { Health, healthOf, healthResponse } from "../../../../lib/telemetry/health.ts";

describe("Health", () => {
  test("goes from starting over ready and draining to stopped", () => {
    const health = new Health();
    const states = [health.state];
    for (const step of [() => health.ready(), () => health.drain(), () => health.stop()]) {
      step();
      states.push(health.state);
    }
    expect(states).toEqual(["starting", "ready", "draining", "stopped"]);
  });

  test("never becomes ready once it drains: SIGTERM may come during the start", () => {
    const health = new Health();
    health.drain();
    health.ready();
    expect(health.state).toBe("draining");
  });

  test("stays stopped", () => {
    const health = new Health();
    health.stop();
    health.ready();
    expect(health.drain()).toBe(false);
    expect(health.state).toBe("stopped");
  });

  test("tells only the call that began the drain", () => {
    const health = new Health();
    expect([health.drain(), health.drain()]).toEqual([true, false]);
  });
});

describe("a requirement", () => {
  test("keeps a node from being ready while it is not met, and no longer", () => {
    const node = new ServiceBroker({ nodeID: "node-1", logger: false });
    healthOf(node).ready();
    let met = false;
    const takeBack = healthOf(node).require({ name: "decoder", probe: "ready", met: () => met });
    expect(healthResponse(node, "ready")).toMatchObject({ status: 503, body: { missing: ["decoder"] } });
    expect(healthResponse(node, "live").status).toBe(200);
    met = true;
    expect(healthResponse(node, "ready").status).toBe(200);
    met = false;
    takeBack();
    expect(healthResponse(node, "ready").status).toBe(200);
  });

  test("of life is one of readiness too", () => {
    const node = new ServiceBroker({ nodeID: "node-1", logger: false });
    healthOf(node).ready();
    healthOf(node).require({ name: "engine", probe: "live", met: () => false });
    for (const probe of ["live", "ready"] as const) {
      expect(healthResponse(node, probe)).toMatchObject({ status: 503, body: { missing: ["engine"] } });
    }
  });
});

describe("healthResponse", () => {
  /** A broker that was never started, so that its parts can be put in any state. */
  function broker(transit?: { connected: boolean; tx: { connected: boolean; alive?: boolean } }) {
    const node = new ServiceBroker({ nodeID: "node-1", logger: false });
    Object.assign(node, { transit });
    return node;
  }

  test("a starting node is alive and not ready", () => {
    const node = broker();
    expect(healthResponse(node, "live")).toEqual({
      status: 200,
      body: { node: "node-1", state: "starting", missing: [] },
    });
    expect(healthResponse(node, "ready")).toMatchObject({ status: 503, body: { missing: ["starting"] } });
  });

  test("a started node without a transporter is ready", () => {
    const node = broker();
    healthOf(node).ready();
    expect(healthResponse(node, "ready")).toMatchObject({
      status: 200,
      body: { state: "ready", missing: [] },
    });
  });

  test("a service that still warms up is named", () => {
    const node = broker();
    healthOf(node).ready();
    healthOf(node).serviceStarting("resnet-cat");
    expect(healthResponse(node, "ready")).toMatchObject({
      status: 503,
      body: { missing: ["service resnet-cat"] },
    });
    healthOf(node).serviceSettled("resnet-cat");
    expect(healthResponse(node, "ready").status).toBe(200);
  });

  test.each([
    { connected: false, tx: { connected: true } },
    { connected: true, tx: { connected: false } },
    { connected: true, tx: { connected: true, alive: false } },
  ])("a node that lost RabbitMQ is alive and not ready: %j", (transit) => {
    const node = broker(transit);
    healthOf(node).ready();
    expect(healthResponse(node, "live").status).toBe(200);
    expect(healthResponse(node, "ready")).toMatchObject({ status: 503, body: { missing: ["transporter"] } });
  });

  test("a connected node is ready", () => {
    const node = broker({ connected: true, tx: { connected: true, alive: true } });
    healthOf(node).ready();
    expect(healthResponse(node, "ready").status).toBe(200);
  });

  test("a draining node is alive and not ready; a stopped one is neither", () => {
    const node = broker();
    healthOf(node).drain();
    expect(healthResponse(node, "live").status).toBe(200);
    expect(healthResponse(node, "ready")).toMatchObject({ status: 503, body: { missing: ["draining"] } });
    healthOf(node).stop();
    expect(healthResponse(node, "live")).toMatchObject({ status: 503, body: { missing: ["stopped"] } });
  });

  test("two brokers of one process have each their own health", () => {
    const [one, two] = [broker(), broker()];
    healthOf(one).ready();
    expect(healthOf(two).state).toBe("starting");
  });
});
