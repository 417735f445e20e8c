import { listDeadLetters, purgeDeadLetters } from "../../../transporters/dead-letters.ts";
import { Topology } from "../../../transporters/topology.ts";
import { FakeChannel } from "./fake-channel.ts";

const topology = new Topology("MOL-test");

/** A store whose channels count themselves. */
function store(channel: FakeChannel) {
  const open = { channels: 0 };
  channel.close = async () => {
    open.channels--;
  };
  const openChannel = async () => {
    open.channels++;
    return channel;
  };
  return { open, store: { topology, connection: { openChannel, close: async () => {} } } };
}

test.each([
  ["list", listDeadLetters],
  ["purge", purgeDeadLetters],
] as const)("a %s that fails leaves no channel behind, as one that does not", async (_, look) => {
  const good = store(new FakeChannel());
  await look(good.store);
  expect(good.open.channels).toBe(0);

  const channel = new FakeChannel();
  const refuse = (): Promise<never> => Promise.reject(new Error("NOT_FOUND"));
  channel.get = refuse;
  channel.purgeQueue = refuse;
  const bad = store(channel);
  await expect(look(bad.store)).rejects.toThrow("NOT_FOUND");
  expect(bad.open.channels).toBe(0);
});

test("without a connection there is nothing to look at", async () => {
  await expect(listDeadLetters({ topology, connection: undefined })).rejects.toMatchObject({
    type: "MODEL_UNAVAILABLE",
  });
});
