import type { Scene } from "./rig.ts";

/** Puts a gateway that holds few requests in the place of the first, until the event is over. */
export async function tightenGateway({ cluster, load, defer }: Scene): Promise<void> {
  const former = cluster.oldest("gateway");
  const gateway = await cluster.start("gateway", { env: { MAX_IN_FLIGHT: "64" } });
  load.target = gateway.url;
  await former.stop();
  defer(() => gateway.stop());
}
