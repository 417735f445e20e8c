import { type Endpoint, type Registry, type ServiceBroker, Strategies } from "moleculer";
import { loadOf } from "../lib/load/load.ts";
import { type LoadTable, type NodeLoad, newcomer } from "../lib/load/table.ts";
import { avoidance, isBetter, SCORE_DEFAULTS, type ScoreOptions } from "./score.ts";

export interface LoadAwareOptions extends ScoreOptions {
  /**
   * A number from 0 up to but not including 1.
   * @default Math.random
   */
  readonly random?: () => number;
}

/**
 * Sends a request where there is room: of two random nodes, the one with the lower score (`score.ts`). Two random ones
 * and not the best of all, because many callers that all see the same best node would bury it (Mitzenmacher, "The
 * Power of Two Choices in Randomized Load Balancing", 2001). Needs the load middleware, and `preferLocal: false`:
 * otherwise Moleculer takes a local node without asking.
 */
export class LoadAwareStrategy extends Strategies.Base {
  readonly #table: LoadTable;
  readonly #options: Required<ScoreOptions>;
  readonly #random: () => number;

  constructor(
    registry: Registry,
    broker: ServiceBroker,
    { random = Math.random, ...options }: LoadAwareOptions = {},
  ) {
    super(registry, broker);
    const seconds = broker.options.heartbeatInterval ?? 0;
    this.#table = loadOf(broker).table;
    this.#options = {
      ...SCORE_DEFAULTS,
      silentAfterMs: seconds > 0 ? 1.5 * seconds * 1000 : Number.POSITIVE_INFINITY,
      ...options,
    };
    this.#random = random;
  }

  /** Free of side effects: moleculer-web asks twice for an upload. */
  override select(list: Endpoint[]): Endpoint {
    return choose(list, this.#table, this.#options, this.#random);
  }
}

/**
 * The node for one more request.
 *
 * @param list at least one; `id` is the node's
 * @param random a number from 0 up to but not including 1
 */
export function choose<E extends { readonly id: string }>(
  list: readonly E[],
  table: LoadTable,
  options: Required<ScoreOptions>,
  random: () => number,
): E {
  const [first] = list;
  if (first === undefined)
    throw new RangeError("Expected at least one endpoint to choose from but received none");
  if (list.length === 1) return first;

  const now = table.now;
  const open = leastAvoided(list, table, now, options);
  const a = Math.floor(random() * open.length);
  const b = Math.floor(random() * (open.length - 1));
  const left = open[a];
  // Any but `a`, each with the same chance.
  const right = open[b < a ? b : b + 1];
  if (!left || !right) return left?.endpoint ?? first;
  return isBetter(right.node, left.node, now, options) ? right.endpoint : left.endpoint;
}

interface Candidate<E> {
  readonly endpoint: E;
  readonly node: NodeLoad;
}

/** Those with the least reason to avoid them, in their order. */
function leastAvoided<E extends { readonly id: string }>(
  list: readonly E[],
  table: LoadTable,
  now: number,
  options: Required<ScoreOptions>,
): readonly Candidate<E>[] {
  let least = Number.POSITIVE_INFINITY;
  let open: Candidate<E>[] = [];
  for (const endpoint of list) {
    const node = table.get(endpoint.id) ?? newcomer(now);
    const reason = avoidance(node, now, options);
    if (reason > least) continue;
    if (reason < least) open = [];
    least = reason;
    open.push({ endpoint, node });
  }
  return open;
}
