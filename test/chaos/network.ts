import { execFile, execFileSync } from "node:child_process";
import { randomBytes, randomInt } from "node:crypto";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { promisify } from "node:util";

const run = promisify(execFile);

/** A network namespace for one node, joined to this machine's by a bridge that can be taken apart. */
export interface Network {
  /** Name of the namespace, for `ip netns exec`. */
  readonly namespace: string;
  /** Address of the node. */
  readonly nodeAddress: string;
  /** This machine's address as the node sees it. */
  readonly hostAddress: string;
  /** From now on nothing passes, in silence: no reset, no refusal, and both sides believe their link is up. */
  cut(): Promise<void>;
  /** Undoes {@link cut}. */
  heal(): Promise<void>;
  remove(): Promise<void>;
}

/**
 * Makes a namespace whose only way out is to `port` of this machine's loopback.
 * @throws where there is no `ip` command, or no right to use it
 */
export async function createNetwork(port: number): Promise<Network> {
  const id = randomBytes(3).toString("hex");
  const [namespace, bridge, outside, inside] = [`dl-${id}`, `dlb-${id}`, `dlo-${id}`, `dli-${id}`];
  // 198.18.0.0/15 is set aside for tests within a machine or a laboratory (RFC 2544).
  const subnet = `198.18.${randomInt(256)}`;
  const [hostAddress, nodeAddress] = [`${subnet}.1`, `${subnet}.2`];
  const ip = (...args: string[]) => run("ip", args);
  const removeNow = () => {
    for (const args of [
      ["netns", "del", namespace],
      ["link", "del", outside],
      ["link", "del", bridge],
    ]) {
      try {
        execFileSync("ip", args, { stdio: "ignore" });
      } catch {
        // Gone already, or never made.
      }
    }
  };
  process.on("exit", removeNow);
  try {
    await ip("netns", "add", namespace);
    await ip("link", "add", bridge, "type", "bridge");
    await ip("address", "add", `${hostAddress}/30`, "dev", bridge);
    await ip("link", "set", bridge, "up");
    await ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", namespace);
    await ip("link", "set", outside, "master", bridge, "up");
    await ip("-n", namespace, "address", "add", `${nodeAddress}/30`, "dev", inside);
    await ip("-n", namespace, "link", "set", inside, "up");
    await ip("-n", namespace, "link", "set", "lo", "up");
    const door = await forward(hostAddress, port);
    return {
      namespace,
      nodeAddress,
      hostAddress,
      cut: async () => void (await ip("link", "set", outside, "nomaster")),
      heal: async () => void (await ip("link", "set", outside, "master", bridge)),
      async remove() {
        process.off("exit", removeNow);
        door.close();
        removeNow();
      },
    };
  } catch (error) {
    process.off("exit", removeNow);
    removeNow();
    throw error;
  }
}

/** Passes connections to `address:port` on to the same port of the loopback. */
async function forward(address: string, port: number) {
  const server = createServer((near) => {
    const far = connect(port, "127.0.0.1");
    near.pipe(far);
    far.pipe(near);
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      one.on("error", () => {});
      one.on("close", () => other.destroy());
    }
  });
  server.listen(port, address);
  await once(server, "listening");
  return server;
}
