import { MAX_PAYLOAD_BYTES } from "../../lib/env.ts";
import { flood, prepareFlood } from "./flood.ts";
import { photo } from "./images.ts";
import { createNetwork } from "./network.ts";
import { overload, prepareOverload } from "./overload.ts";
import { poisonEvents } from "./poisoning.ts";
import { type ChaosEvent, type Scene, Skipped } from "./rig.ts";
import { swapEvents } from "./swapping.ts";

/** A RabbitMQ that was killed takes up to 20 s to serve again on two busy cores. */
const LONGER_THAN_A_START_MS = 45_000;

/** More than RabbitMQ 4 takes in one message by default (16 MiB). */
const HUGE_BYTES = 17 * 2 ** 20;

/** All that the suite does to the cluster, and what must hold then. */
export const EVENTS: readonly ChaosEvent[] = [
  {
    name: "kill-model",
    about: "kill -9 one of two model nodes",
    protectedBy: { mechanism: "steal", bar: "fast" },
    slowerByMs: 1500,
    act: (scene) => killOneOf("resnet-cat", scene),
  },
  {
    name: "kill-dispatcher",
    about: "kill -9 one of two dispatchers",
    protectedBy: { mechanism: "steal", bar: "fast" },
    slowerByMs: 1500,
    act: (scene) => killOneOf("dispatcher", scene),
  },
  {
    name: "rolling",
    about: "SIGTERM every service in turn, replacements started",
    protectedBy: { mechanism: "drain", bar: "answered" },
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
          expect("orderly", code === 0, `${old.name} ended with ${code}`);
        }
      }
    },
  },
  {
    name: "rabbit-restart",
    about: "RabbitMQ restarted",
    protectedBy: { mechanism: "resend", bar: "answered" },
    async act({ rabbit, load }) {
      const restarted = rabbit.restart();
      await load.burst();
      await restarted;
    },
  },
  {
    name: "connections-closed",
    about: "all connections to RabbitMQ closed by it",
    protectedBy: { mechanism: "resend", bar: "answered" },
    async act({ rabbit, load, pause, choose }) {
      load.rate *= 2;
      for (let round = 0; round < choose(5, 3); round++) {
        await rabbit.ctl("close_all_connections", "--global", "chaos");
        await pause(1);
      }
    },
  },
  {
    name: "rabbit-kill",
    about: "kill -9 the only RabbitMQ, started again after 3 s",
    protectedBy: { mechanism: "resend", bar: "answered" },
    async act({ rabbit, load, pause }) {
      load.deadlineMs = LONGER_THAN_A_START_MS;
      await load.burst();
      await rabbit.kill();
      await pause(3);
      await rabbit.start();
    },
  },
  {
    name: "two-kills",
    about: "two of three model nodes killed 0.8 s apart",
    protectedBy: { mechanism: "steal", bar: "fast" },
    slowerByMs: 2000,
    async prepare({ cluster }) {
      await cluster.start("resnet-cat");
    },
    async act({ cluster, load, pause, choose }) {
      const [first, second] = cluster.members("resnet-cat");
      await load.burst(32);
      await first?.kill();
      await pause(0.8);
      await second?.kill();
      await load.burst(32);
      await pause(choose(8, 4));
      await cluster.start("resnet-cat");
    },
  },
  {
    name: "sigterm-offline",
    about: "SIGTERM of a model node while RabbitMQ is away",
    protectedBy: { mechanism: "drain", bar: "orderly" },
    async act({ cluster, rabbit, load, expect, pause }) {
      const victim = cluster.oldest("resnet-cat");
      load.deadlineMs = LONGER_THAN_A_START_MS;
      await load.burst();
      await rabbit.kill();
      await pause(1);
      const stopped = victim.stop();
      await pause(2);
      await rabbit.start();
      const code = await stopped;
      expect("orderly", code === 0, `${victim.name} ended with ${code}`);
      await cluster.start("resnet-cat");
    },
  },
  {
    name: "memory-alarm",
    about: "RabbitMQ blocks publishers for 10 s: its memory alarm",
    protectedBy: { mechanism: "patience", bar: "answered" },
    act: (scene) =>
      blockPublishers(
        ["set_vm_memory_high_watermark", "absolute", "1MiB"],
        ["set_vm_memory_high_watermark", "0.6"],
        scene,
      ),
  },
  {
    name: "disk-alarm",
    about: "RabbitMQ blocks publishers for 10 s: its disk alarm",
    protectedBy: { mechanism: "patience", bar: "answered" },
    act: (scene) =>
      blockPublishers(["set_disk_free_limit", "1000000GB"], ["set_disk_free_limit", "50MB"], scene),
  },
  {
    name: "rabbit-member",
    about: "kill -9 one of three members of RabbitMQ, processes connected to each, and its return",
    members: 3,
    protectedBy: { mechanism: "quorum", bar: "answered" },
    async act({ rabbits, load, pause, choose }) {
      for (const member of rabbits.slice(0, choose(3, 1))) {
        // Shorter than it is away: nothing may wait for its return.
        load.deadlineMs = 10_000;
        await load.burst();
        await member.kill();
        void load.burst();
        await pause(12);
        await member.start();
        await load.burst();
        await pause(2);
      }
    },
  },
  {
    name: "rolling-settings",
    about: "every process replaced by one with other STEAL_AFTER_MS and MAX_REQUEST_TIMEOUT_MS",
    protectedBy: { mechanism: "no-tunables", bar: "alive" },
    async act({ cluster, load, expect, pause, choose }) {
      const env = { STEAL_AFTER_MS: "300", MAX_REQUEST_TIMEOUT_MS: "45000" };
      for (const service of ["resnet-cat", "resnet-dog", "dispatcher", "gateway"]) {
        for (const old of cluster.members(service).slice(0, choose(Number.POSITIVE_INFINITY, 1))) {
          const fresh = await cluster.start(service, { env }).catch((error: Error) => error);
          if (fresh instanceof Error) return expect("alive", false, fresh.message);
          if (service === "gateway") load.target = fresh.url;
          await load.burst();
          await pause(0.2);
          const code = await old.stop();
          expect("orderly", code === 0, `${old.name} ended with ${code}`);
        }
      }
    },
  },
  {
    name: "kill-gateway",
    about: "kill -9 one of two gateways; its clients ask the other",
    protectedBy: { mechanism: "failover", bar: "answered" },
    slowerByMs: 1500,
    async prepare({ cluster, load }) {
      const second = await cluster.start("gateway");
      load.others = [second.url];
    },
    async act({ cluster, load, pause }) {
      await load.burst();
      await cluster.oldest("gateway").kill();
      await load.burst();
      await pause(3);
      load.target = cluster.oldest("gateway").url;
    },
  },
  {
    name: "huge-upload",
    about: "a 17 MiB image that RabbitMQ would not take, MAX_IMAGE_BYTES raised as far as it goes",
    async prepare({ cluster, load, defer }) {
      const former = cluster.oldest("gateway");
      const gateway = await cluster.start("gateway", { env: { MAX_IMAGE_BYTES: String(MAX_PAYLOAD_BYTES) } });
      load.target = gateway.url;
      await former.stop();
      defer(() => gateway.stop());
    },
    async act({ load, expect, note, pause }) {
      const large = Buffer.concat([await photo(0), Buffer.alloc(HUGE_BYTES)]);
      for (let i = 0; i < 3; i++) {
        await load.burst();
        const { status, error } = await load.probe(large, load.models);
        note(`${status} ${error}`);
        expect("bounded", status === 413, `the large image got ${status} ${error}`);
      }
      await pause(2);
    },
  },
  {
    name: "channel-closed",
    about: "the channel of a model node closed by RabbitMQ, its connection left open",
    protectedBy: { mechanism: "channel-watch", bar: "alive" },
    async act({ cluster, rabbit, load, pause }) {
      await load.burst();
      await rabbit.ctl("eval", closeChannelsOf(cluster.oldest("resnet-cat").name));
      await pause(2);
    },
  },
  {
    name: "redis",
    about: "Redis killed and restarted, half of the requests cached",
    protectedBy: { mechanism: "fail-open", bar: "fast" },
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
    protectedBy: { mechanism: "heartbeat", bar: "answered" },
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
    protectedBy: { mechanism: "heartbeat", bar: "answered" },
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
  ...poisonEvents,
  ...swapEvents,
  {
    name: "overload",
    about: "ten times the capacity",
    protectedBy: { mechanism: "admission", bar: "bounded" },
    judgesItself: true,
    prepare: prepareOverload,
    act: overload,
  },
  {
    name: "flood",
    about: "five times the capacity of one model, another looked at",
    protectedBy: { mechanism: "share", bar: "answered" },
    judgesItself: true,
    prepare: prepareFlood,
    act: flood,
  },
];

/** Raises an alarm of RabbitMQ's, and ends it after 10 s. */
async function blockPublishers(
  raise: readonly string[],
  end: readonly string[],
  { rabbit, load, pause }: Scene,
): Promise<void> {
  await load.burst();
  await rabbit.ctl(...raise);
  // Their answers come when it is over.
  void load.burst();
  await pause(10);
  await rabbit.ctl(...end);
}

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
