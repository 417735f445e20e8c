import type { ServiceBroker, Transit } from "moleculer";
import { DeadlineExceededError } from "../lib/errors.ts";

/** Two may be missed, by a collector or a busy core. */
const SILENT_AFTER_HEARTBEATS = 2.5;
const SILENCE_LOOK_MS = 500;

/** What Moleculer tells and asks once its decisions are taken from it. */
export interface Decisions {
  /** Nobody waits for this request any more. */
  forgotten(id: string): void;
  /** Whether we hear others at all. */
  hears(): boolean;
  /** A node's heartbeats have stopped, or it is gone. Told again and again. */
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
  judgeNodesOnlyWhileHearing(transit, hears);
  watchForSilence(broker, hears, silent);
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

/** Stock gives a node up that was not heard for a while; while we hear nobody, silence proves nothing. */
function judgeNodesOnlyWhileHearing(transit: Transit, hears: () => boolean): void {
  const { discoverer } = transit;
  const check = discoverer.checkRemoteNodes.bind(discoverer);
  discoverer.checkRemoteNodes = () => {
    if (hears()) check();
  };
}

/**
 * Stock looks at most once in every `heartbeatTimeout`, so a node may be silent for twice as long. Its requests had
 * better not wait for that, nor for RabbitMQ to find out that a process hangs.
 */
function watchForSilence(
  broker: ServiceBroker,
  hears: () => boolean,
  silent: (nodeID: string) => void,
): void {
  const { heartbeatInterval = 0 } = broker.options;
  if (!heartbeatInterval) return;
  setInterval(() => {
    if (!hears()) return;
    const now = process.uptime();
    for (const node of broker.registry.nodes.toArray()) {
      const { local, available, lastHeartbeatTime } = node;
      if (local || !available || !lastHeartbeatTime) continue;
      if (now - lastHeartbeatTime > SILENT_AFTER_HEARTBEATS * heartbeatInterval) silent(node.id);
    }
  }, SILENCE_LOOK_MS).unref();
}

/** After an outage every node has been silent for as long: their time starts anew. */
export function pardonSilence({ registry }: ServiceBroker): void {
  // As Moleculer writes it: seconds since this process started.
  const now = Math.round(process.uptime());
  for (const node of registry.nodes.toArray()) if (!node.local) node.lastHeartbeatTime = now;
}
