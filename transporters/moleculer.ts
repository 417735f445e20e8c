import type { ServiceBroker, Transit } from "moleculer";
import { DeadlineExceededError } from "../lib/errors.ts";

/** Between two looks at who is silent, milliseconds. */
const LOOK_MS = 1000;

/** What Moleculer tells and asks once its decisions are taken from it. */
export interface Decisions {
  /** Nobody waits for this request any more. */
  forgotten(id: string): void;
  /** Whether we hear others at all. */
  hears(): boolean;
  /** A node's heartbeats have stopped. */
  silent(nodeID: string): void;
}

/**
 * All that we change in Moleculer's transit and registry. Their ways fit Moleculer's own topology only, where a
 * request is lost with its node.
 */
export function changeMoleculer(
  broker: ServiceBroker,
  transit: Transit,
  { forgotten, hears, silent }: Decisions,
): void {
  settleForgottenRequests(transit, forgotten);
  // Stock rejects all requests that were sent to a lost node. They are in RabbitMQ, and another node will answer them.
  transit.removePendingRequestByNodeID = () => {};
  judgeNodesOnlyWhileHearing(broker, transit, hears);
  broker.localBus.on(
    "$node.disconnected",
    ({ node, unexpected }: { readonly node: { readonly id: string }; readonly unexpected: boolean }) => {
      if (unexpected) silent(node.id);
    },
  );
}

/**
 * Stock leaves a timed-out request unsettled, and its context with the tracker that a graceful stop waits for.
 * `removePendingRequest` is called on an answer and on a time-out alike.
 */
function settleForgottenRequests(transit: Transit, forgotten: (id: string) => void): void {
  const remove = transit.removePendingRequest.bind(transit);
  transit.removePendingRequest = (id) => {
    forgotten(id);
    const request = transit.pendingRequests.get(id);
    remove(id);
    if (request) rejectUnlessSettled(request);
  };
}

/** An answered request is settled right after it was removed. */
function rejectUnlessSettled(request: Transit.TransitRequest): void {
  const { resolve, reject } = request;
  let settled = false;
  request.resolve = (value) => {
    settled = true;
    resolve(value);
  };
  request.reject = (error) => {
    settled = true;
    reject(error);
  };
  queueMicrotask(() => {
    if (!settled) reject(new DeadlineExceededError("answer"));
  });
}

/**
 * Stock gives a node up that was not heard for a while; while we hear nobody, silence proves nothing. It looks as seldom
 * as it is patient, so that a node may be silent for twice that: what it holds is sent again too late for its callers.
 */
function judgeNodesOnlyWhileHearing(broker: ServiceBroker, transit: Transit, hears: () => boolean): void {
  const { discoverer } = transit;
  const check = discoverer.checkRemoteNodes.bind(discoverer);
  discoverer.checkRemoteNodes = () => {
    if (hears()) check();
  };
  const looking = setInterval(() => discoverer.checkRemoteNodes(), LOOK_MS).unref();
  broker.localBus.on("$broker.stopped", () => clearInterval(looking));
}

/** After an outage every node has been silent for as long: their time starts anew. */
export function pardonSilence({ registry }: ServiceBroker): void {
  // As Moleculer writes it: seconds since this process started.
  const now = Math.round(process.uptime());
  for (const node of registry.nodes.toArray()) if (!node.local) node.lastHeartbeatTime = now;
}
