import { type Queue, type Seat, Topology, waitedAtMost } from "../../../transporters/topology.ts";

const topology = new Topology("MOL-prod");

/** How RabbitMQ matches a routing key to a topic binding. */
function matches(binding: string, key: string): boolean {
  const pattern = binding
    .split(".")
    .map((each) => (each === "*" ? "[^.]+" : each.replaceAll(/[^\w]/g, "\\$&")))
    .join("\\.");
  return new RegExp(`^${pattern}$`).test(key);
}

const seats: Seat[] = ["node-1", "node.1", "node.1.2", "*", "#", "n%2E1", "knoten ä"].flatMap((nodeID) =>
  ["", "1", "2"].map((epoch) => ({ nodeID, epoch })),
);
const actions = ["resnet-cat.predict", "v2.resnet.predict", "a.*", "a.#", "$x.y"];
const seat = seats[1] as Seat;

const lasting: Queue[] = [
  topology.shared("a.b"),
  topology.quarantine("a.b"),
  topology.dead(),
  topology.deadLetters(),
];
const own: Queue[] = [topology.targeted(seat, 500), topology.inbox(seat)];

test("a key reaches the queue of one connection of a node, that of its action, and no other", () => {
  for (const seat of seats) {
    for (const action of actions) {
      const key = topology.key(seat, action);
      expect(seats.filter((each) => matches(topology.keysOfSeat(each), key))).toEqual([seat]);
      expect(actions.filter((each) => matches(topology.keysOfAction(each), key))).toEqual([action]);
    }
  }
});

test("every queue is durable, of a kind that RabbitMQ 4 has, and bounded", () => {
  const queues = [...lasting, ...own];
  expect(new Set(queues.map(({ name }) => name)).size).toBe(queues.length);
  for (const { name, options } of queues) {
    expect(name).toMatch(/^MOL-prod\.v2\./);
    expect(options).toMatchObject({ durable: true, arguments: { "x-overflow": "drop-head" } });
    expect(options.maxLength).toBeGreaterThan(0);
    expect(options.exclusive ? Number.POSITIVE_INFINITY : options.messageTtl).toBeGreaterThan(0);
  }
});

test("what lasts has no single home", () => {
  for (const { options } of lasting) expect(options.arguments["x-queue-type"]).toBe("quorum");
});

test("what has one home is a connection's own: no other connection of the node has a queue of that name", () => {
  for (const queue of [(each: Seat) => topology.targeted(each, 500), (each: Seat) => topology.inbox(each)]) {
    expect(queue(seat).options.arguments["x-queue-type"]).toBe("classic");
    expect(new Set(seats.map((each) => queue(each).name)).size).toBe(seats.length);
  }
});

test("a node's queues end with it, even if RabbitMQ was away when it died", () => {
  expect(topology.inbox(seat).options).toMatchObject({ exclusive: true });
  const { expires, messageTtl } = topology.targeted(seat, 60_000).options;
  expect(expires).toBeGreaterThan(messageTtl ?? Number.POSITIVE_INFINITY);
});

test("a lasting queue outlives the requests in it", () => {
  for (const { options } of [topology.shared("a"), topology.quarantine("a")]) {
    expect(options.expires ?? 0).toBeGreaterThan(options.messageTtl ?? Number.POSITIVE_INFINITY);
  }
});

test("a request moves from the chosen node to all, and from there to the dead", () => {
  expect(topology.targeted(seat, 500).options).toMatchObject({
    messageTtl: 500,
    deadLetterExchange: topology.sharedExchange,
  });
  for (const queue of [topology.shared("a"), topology.quarantine("a")]) {
    expect(queue.options).toMatchObject({ deadLetterExchange: topology.deadExchange });
  }
});

test("a targeted queue's name says how long a request waits there", () => {
  for (const each of seats) expect(waitedAtMost(topology.targeted(each, 1234).name)).toBe(1234);
  expect(waitedAtMost(topology.shared("a.1").name)).toBeUndefined();
});
