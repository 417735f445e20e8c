import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { flood, prepareFlood } from "./flood.ts";
import { poisoned } from "./images.ts";
import { createNetwork } from "./network.ts";
import { overload, prepareOverload } from "./overload.ts";
import type { Poison } from "./poison.ts";
import { type ChaosEvent, type Scene, Skipped } from "./rig.ts";

/** Attempts that a request which kills gets, over all nodes. */
const MAX_ATTEMPTS = 3;

/** All that the suite does to the cluster, and what must hold then. */
export const EVENTS: readonly ChaosEvent[] = [
  {
    name: "kill-model",
    about: "kill -9 one of two model nodes",
    protectedBy: "steal",
    slowerByMs: 1500,
    act: (scene) => killOneOf("resnet-cat", scene),
  },
  {
    name: "kill-dispatcher",
    about: "kill -9 one of two dispatchers",
    protectedBy: "steal",
    slowerByMs: 1500,
    act: (scene) => killOneOf("dispatcher", scene),
  },
  {
    name: "rolling",
    about: "SIGTERM every service in turn, replacements started",
    protectedBy: "drain",
    async act({ cluster, load, expect, pause, choose }) {
      for (const service of ["gateway", "dispatcher", "resnet-cat", "resnet-dog"]) {
        for (const old of cluster.members(service).slice(0, choose(Number.POSITIVE_INFINITY, 1))) {
          const fresh = await cluster.start(service);
          await load.burst(48);
          // As a load balancer does: what the old one has is left to it, what comes goes to the new one. What was just
          // sent must have been read before the end, or its connection is reset like that of any closed port.
          if (service === "gateway") load.target = fresh.url;
          await pause(0.1);
          const code = await old.stop();
          expect(code === 0, `${old.name} ended with ${code}`);
        }
      }
    },
  },
  {
    name: "rabbit-restart",
    about: "RabbitMQ restarted",
    protectedBy: "resend",
    async act({ rabbit, load }) {
      const restarted = rabbit.restart();
      await load.burst();
      await restarted;
    },
  },
  {
    name: "connections-closed",
    about: "all connections to RabbitMQ closed by it",
    protectedBy: "resend",
    async act({ rabbit, load, pause, choose }) {
      load.rate *= 2;
      for (let round = 0; round < choose(5, 3); round++) {
        await rabbit.ctl("close_all_connections", "--global", "chaos");
        await pause(1);
      }
    },
  },
  {
    name: "channel-closed",
    about: "the channel of a model node closed by RabbitMQ, its connection left open",
    protectedBy: "channel-watch",
    async act({ cluster, rabbit, load, pause }) {
      await load.burst();
      await rabbit.ctl("eval", closeChannelsOf(cluster.oldest("resnet-cat").name));
      await pause(2);
    },
  },
  {
    name: "redis",
    about: "Redis killed and restarted, half of the requests cached",
    protectedBy: "fail-open",
    slowerByMs: 250,
    async prepare({ load }) {
      load.cached = 0.5;
    },
    async act({ redis, pause, choose }) {
      await redis.kill();
      await pause(choose(5, 3));
      await redis.start();
      await pause(2);
    },
  },
  {
    name: "sigstop",
    about: "SIGSTOP a model node for 10 s",
    protectedBy: "heartbeat",
    async act({ cluster, load, pause }) {
      // Shorter than the stop: an answer that comes when the node goes on again is too late.
      load.deadlineMs = 9000;
      const victim = cluster.oldest("resnet-cat");
      victim.signal("SIGSTOP");
      try {
        await load.burst(32);
        await pause(10);
      } finally {
        victim.signal("SIGCONT");
      }
    },
  },
  {
    name: "partition",
    about: "a model node cut off by its network namespace for 15 s, then healed",
    protectedBy: "heartbeat",
    async prepare({ cluster, rabbit, defer }) {
      const { port, username, password } = new URL(rabbit.url);
      const network = await createNetwork(Number(port)).catch((error: Error) => {
        throw new Skipped(`no network namespace: ${error.message.trim().split("\n").at(-1)}`);
      });
      defer(() => network.remove());
      const island = await cluster.start("resnet-cat", {
        network,
        env: { TRANSPORTER: `amqp://${username}:${password}@${network.hostAddress}:${port}` },
      });
      defer(() => island.kill());
    },
    async act({ cluster, load, pause }) {
      const network = cluster.members().find((member) => member.network)?.network;
      await load.burst();
      await network?.cut();
      await load.burst(32);
      await pause(15);
      await network?.heal();
    },
  },
  {
    name: "poison",
    about: "images that kill the engine's thread, or the process",
    protectedBy: "quarantine",
    async prepare({ cluster, load, folder }) {
      const env = { CHAOS_ATTEMPTS: join(folder, "attempts") };
      for (let i = 0; i < 3; i++) await cluster.start("fragile", { env, restarts: true });
      load.models = [...load.models, "fragile"];
    },
    async act(scene) {
      await poison("thread", scene);
      await poison("process", scene);
    },
  },
  {
    name: "overload",
    about: "ten times the capacity",
    protectedBy: "admission",
    judgesItself: true,
    prepare: prepareOverload,
    act: overload,
  },
  {
    name: "flood",
    about: "five times the capacity of one model, another looked at",
    protectedBy: "share",
    judgesItself: true,
    prepare: prepareFlood,
    act: flood,
  },
];

async function killOneOf(service: string, { cluster, load, pause, choose }: Scene): Promise<void> {
  const victim = cluster.oldest(service);
  await load.burst();
  await victim.kill();
  await load.burst();
  await pause(choose(8, 4));
  await cluster.start(service);
}

/**
 * For `rabbitmqctl eval`: an acknowledgement of nothing, in the node's name, on each of its channels. RabbitMQ answers
 * it as one from the node: 406, and the channel is closed. The same happens after its consumer time-out.
 */
function closeChannelsOf(node: string): string {
  return `lists:foreach(fun(Channel) ->
    [{connection, Connection}] = rabbit_channel:info(Channel, [connection]),
    [{client_properties, Properties}] = rabbit_reader:info(Connection, [client_properties]),
    case lists:keyfind(<<"connection_name">>, 1, Properties) of
      {_, _, <<"${node}">>} -> rabbit_channel:do(Channel, {'basic.ack', 999999999, false});
      _ -> ok
    end
  end, rabbit_channel:list()).`;
}

async function poison(kind: Poison, { load, folder, expect, note, pause, choose }: Scene): Promise<void> {
  const image = await poisoned(kind);
  // In the midst of others, so that it shares a batch with them.
  const before = load.burst();
  const deadly = load.probe(image, ["fragile"]);
  await Promise.all([before, load.burst()]);
  const { status, error } = await deadly;
  const attempts = (await readFile(join(folder, "attempts"), "utf8").catch(() => ""))
    .split("\n")
    .filter((attempt) => attempt === kind).length;
  note(`${kind}: ${status} ${error} after ${attempts} attempts`);
  expect(status >= 500 && error !== undefined, `the ${kind} killer got ${status}`);
  expect(attempts >= 1 && attempts <= MAX_ATTEMPTS, `${attempts} attempts for the ${kind} killer`);
  await pause(choose(5, 2));
}
