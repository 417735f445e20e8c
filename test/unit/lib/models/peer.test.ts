import { EventEmitter } from "node:events";
import type { ServiceBroker } from "moleculer";
import { Catalog } from "../../../../lib/models/catalog.ts";
import { metadataProblems } from "../../../../lib/models/peer.ts";
import { classification } from "../../../../lib/tasks/classification.ts";

interface Parts {
  readonly input?: object;
  readonly id?: object;
  readonly task?: object;
  readonly action?: string;
  readonly versions?: unknown;
  readonly batching?: object;
}

function said({ input, id, task, action, versions, batching }: Parts = {}) {
  const version = {
    id: { name: "net", version: 1, fingerprint: "f", ...id },
    action: action ?? "1-f.m.predict",
    input: input ?? { type: "image", width: 224, height: 224 },
    task: {
      name: "classification",
      spec: { labels: ["cat"] },
      question: { group: [0], threshold: 0.5 },
      ...task,
    },
  };
  return {
    kind: "model" as const,
    question: "Is it a cat?",
    versions: (versions ?? [version]) as never,
    batching: { maxBatchSize: 8, maxQueueSize: 128, maxQueueDelayMs: 0, concurrency: 2, ...batching },
  };
}

test.each<Parts>([
  {},
  { input: { type: "image", width: 224, height: 300, shortSide: 320 } },
  { input: { type: "tensor", inputs: [{ name: "x", dtype: "float32", shape: [null, 3] }] } },
  // A kind that this process does not know is not its business.
  { input: { type: "numbers", length: 3 } },
])("what may be is believed: %j", (parts) => {
  expect(metadataProblems(said(parts))).toEqual([]);
});

test.each<Parts>([
  { input: { type: "image", width: 12_000, height: 12_000 } },
  { input: { type: "image", width: 0, height: 224 } },
  { input: { type: "image", width: "224", height: 224 } },
  { input: { type: "image", width: 224, height: 224, shortSide: 1e9 } },
  { input: { type: "image", width: Number.NaN, height: 224 } },
  { input: { type: "tensor", inputs: [{ name: "x", dtype: "float16", shape: [] }] } },
  { input: { type: "numbers", padding: "x".repeat(2_000_000) } },
  { input: {} },
  { id: { fingerprint: "" } },
  { id: { version: "1" } },
  { action: "$node.options" },
  { task: { spec: { labels: Array.from({ length: 200_000 }, (_, index) => `label-${index}`) } } },
  { task: { spec: null } },
  { versions: "many" },
  { versions: Array.from({ length: 17 }, () => said().versions[0]) },
  { batching: { maxBatchSize: -1 } },
])("what cannot be is not: %#", (parts) => {
  expect(metadataProblems(said(parts))).not.toEqual([]);
});

test("a replica that claims what cannot be is no replica, takes no other with it, and is told once", () => {
  const localBus = new EventEmitter();
  const warnings: unknown[] = [];
  const logger = { warn: (...line: unknown[]) => warnings.push(line) };
  const service = (nodeID: string, metadata: object) => ({ name: "m", nodeID, available: true, metadata });
  const services = [
    service("good", said()),
    service("bad", said({ input: { type: "image", width: 12_000, height: 1 } })),
  ];
  const registry = { getServiceList: () => services };
  const catalog = new Catalog({ localBus, registry, logger } as unknown as ServiceBroker);
  localBus.emit("$services.changed");
  expect(catalog.get("m")?.versions).toMatchObject([{ replicas: ["good"] }]);
  expect(warnings).toEqual([[expect.any(String), expect.objectContaining({ model: "m", nodeID: "bad" })]]);
});

test.each([
  ["too few numbers", Float32Array.of(1)],
  ["too many", Float32Array.of(0.5, 0.25, 0.25)],
  ["no number", Float32Array.of(Number.NaN, 0)],
  ["an infinite one", Float32Array.of(Number.POSITIVE_INFINITY, 0)],
  ["no numbers", ["yes", "no"]],
  ["nothing", null],
])("an output of %s is no answer", (_, output) => {
  const ask = () =>
    classification.answer(
      output as Float32Array,
      { group: [0], threshold: 0.5 },
      { labels: ["cat", "other"] },
    );
  expect(ask).toThrow("2 finite numbers");
});
