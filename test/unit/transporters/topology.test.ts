import { settings } from "../../../transporters/options.ts";
import { Topology } from "../../../transporters/topology.ts";

const topology = new Topology("MOL-prod.v1", settings({ url: "amqp://rabbit" }));

/** How RabbitMQ matches a routing key to a topic binding. */
function matches(binding: string, key: string): boolean {
  const pattern = binding
    .split(".")
    .map((each) => (each === "*" ? "[^.]+" : each.replaceAll(/[^\w]/g, "\\$&")))
    .join("\\.");
  return new RegExp(`^${pattern}$`).test(key);
}

const nodes = ["node-1", "node.1", "node.1.2", "*", "#", "n%2E1", "knoten ä"];
const actions = ["resnet-cat.predict", "v2.resnet.predict", "a.*", "a.#", "$x.y"];

test("a key reaches the queue of its node and of its action, and no other", () => {
  for (const node of nodes) {
    for (const action of actions) {
      const key = topology.key(node, action);
      expect(nodes.filter((each) => matches(topology.keysOfNode(each), key))).toEqual([node]);
      expect(actions.filter((each) => matches(topology.keysOfAction(each), key))).toEqual([action]);
    }
  }
});

test("every queue is durable, of a kind that RabbitMQ 4 has, bounded in number and in time", () => {
  const queues = [
    topology.targeted("n"),
    topology.pinned("n"),
    topology.responses("n"),
    topology.shared("a.b"),
    topology.quarantine("a.b"),
    topology.dead(),
    topology.deadLetters(),
  ];
  expect(new Set(queues.map(({ name }) => name)).size).toBe(queues.length);
  for (const { name, options } of queues) {
    expect(name).toMatch(/^MOL-prod\.v1\./);
    expect(options).toMatchObject({ durable: true, arguments: { "x-overflow": "drop-head" } });
    expect(["classic", "quorum"]).toContain(options.arguments["x-queue-type"]);
    expect(options.maxLength).toBeGreaterThan(0);
    expect(options.messageTtl).toBeGreaterThan(0);
  }
});

test("a request moves from the chosen node to all, and from there to the dead", () => {
  expect(topology.targeted("n").options).toMatchObject({
    messageTtl: 500,
    deadLetterExchange: topology.sharedExchange,
  });
  for (const queue of [topology.shared("a"), topology.quarantine("a"), topology.pinned("n")]) {
    expect(queue.options).toMatchObject({ messageTtl: 60_000, deadLetterExchange: topology.deadExchange });
  }
});

test("a queue outlives the requests in it", () => {
  for (const { options } of [topology.targeted("n"), topology.pinned("n"), topology.shared("a")]) {
    expect(options.expires ?? 0).toBeGreaterThan(options.messageTtl ?? Number.POSITIVE_INFINITY);
  }
});
