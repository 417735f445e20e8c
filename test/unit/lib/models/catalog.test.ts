import { EventEmitter } from "node:events";
import type { ServiceBroker } from "moleculer";
import { Catalog, describeModel, isReady } from "../../../../lib/models/catalog.ts";
import { type Change, changed } from "../../../../lib/models/control.ts";
import type { ModelMetadata } from "../../../../lib/types.ts";

const metadata = (version = 1): ModelMetadata => ({
  kind: "model",
  question: "?",
  versions: [
    {
      id: { name: "net", version, fingerprint: `f${version}` },
      action: `${version}.m.predict`,
      input: { type: "image", width: 2, height: 2 } as never,
      task: { name: "classification", spec: { labels: ["cat"] }, question: {} },
    },
  ],
  batching: { maxBatchSize: 1, maxQueueSize: 1, maxQueueDelayMs: 0, concurrency: 1 },
});

interface Service {
  readonly name: string;
  readonly nodeID: string;
  readonly available: boolean;
  readonly metadata: object;
}

const service = (name: string, nodeID: string, version = 1): Service => ({
  name,
  nodeID,
  available: true,
  metadata: metadata(version),
});

function catalog(...services: Service[]) {
  const localBus = new EventEmitter();
  let now = 0;
  let registered: readonly Service[] = services;
  const registry = { getServiceList: () => registered };
  /** Of this process, registered or not. */
  const local: Omit<Service, "nodeID" | "available">[] = [];
  const broker = { localBus, registry, nodeID: "self", services: local };
  const made = new Catalog(broker as unknown as ServiceBroker, () => now);
  return {
    made,
    local,
    change(...next: Service[]) {
      registered = next;
      localBus.emit("$services.changed");
    },
    pass(ms: number) {
      now += ms;
    },
  };
}

describe("the catalog", () => {
  test("has every model service once, with its replicas, by name", () => {
    const other = { name: "gateway", nodeID: "a", available: true, metadata: {} };
    const { made } = catalog(service("m", "b"), service("k", "a"), service("m", "a"), other);
    expect(made.list().map(describeModel)).toMatchObject([
      { name: "k", replicas: ["a"] },
      { name: "m", replicas: ["a", "b"], state: "ready", model: { version: 1 }, labels: ["cat"] },
    ]);
  });

  test("keeps versions apart: those with the most replicas first, of as many the newest", () => {
    const { made, change } = catalog(service("m", "a", 1), service("m", "b", 2));
    const versions = () => made.get("m")?.versions.map(({ id, replicas }) => [id.version, replicas] as const);
    expect(versions()).toEqual([
      [2, ["b"]],
      [1, ["a"]],
    ]);
    change(service("m", "a", 1), service("m", "b", 2), service("m", "c", 1));
    expect(versions()).toEqual([
      [1, ["a", "c"]],
      [2, ["b"]],
    ]);
  });

  test("shows the version for who names none: the stable one, and no canary", () => {
    const decided = (change: Change): Service => {
      const versions = [...metadata(2).versions, ...metadata(1).versions];
      return {
        ...service("m", "a"),
        metadata: { ...metadata(), versions, control: changed(undefined, change, "me") },
      };
    };
    const { made, change } = catalog(decided({ op: "label", label: "stable", version: 1 }));
    const versionShown = () => made.list().map(describeModel)[0]?.model.version;
    expect(versionShown()).toBe(1);
    change(decided({ op: "label", label: "canary", version: 2, share: 0.5 }));
    expect(versionShown()).toBe(1);
    change(decided({ op: "load", version: 2 }));
    expect(versionShown()).toBe(2);
  });

  test("remembers a model whose last replica left, and knows it when it is back", () => {
    const { made, change } = catalog(service("m", "a"));
    change();
    const away = made.get("m");
    expect(away && [isReady(away), describeModel(away)]).toMatchObject([
      false,
      { state: "unavailable", replicas: [], question: "?" },
    ]);
    expect(made.list()).toHaveLength(1);
    change(service("m", "b", 2));
    expect(made.list().map(describeModel)).toMatchObject([{ state: "ready", model: { version: 2 } }]);
  });

  test("remembers one that came and went without anyone asking", () => {
    const { made, change } = catalog();
    change(service("m", "a"));
    change();
    expect(made.get("m")).toBeDefined();
  });

  test("knows a model of this process that is still loading, as unavailable, and once when it is there", () => {
    const { made, local, change } = catalog();
    local.push({ name: "m", metadata: metadata() }, { name: "gateway", metadata: {} });
    expect(made.list().map(describeModel)).toMatchObject([{ name: "m", state: "unavailable", replicas: [] }]);
    expect([made.get("m")?.name, made.get("gateway")]).toEqual(["m", undefined]);
    change(service("m", "self"));
    expect(made.list().map(describeModel)).toMatchObject([{ name: "m", state: "ready", replicas: ["self"] }]);
  });

  test("does not know what never was", () => {
    expect(catalog(service("m", "a")).made.get("n")).toBeUndefined();
  });

  test("forgets on request, and after a day", () => {
    const { made, change, pass } = catalog(service("m", "a"), service("n", "a"));
    change();
    expect([made.forget("m"), made.forget("m")]).toEqual([true, false]);
    expect(made.list().map(({ name }) => name)).toEqual(["n"]);
    pass(24 * 3_600_000 + 1);
    change();
    expect(made.list()).toEqual([]);
  });

  test("remembers a bounded number, the latest", () => {
    const { made, change } = catalog();
    for (let i = 0; i < 1_100; i++) change(service(`m${i}`, "a"));
    change();
    expect(made.list()).toHaveLength(1_000);
    expect([made.get("m0"), made.get("m1099")?.name]).toEqual([undefined, "m1099"]);
  });
});
