import { type Endpoint, type Registry, type ServiceBroker, Strategies } from "moleculer";
import { loadOf } from "../lib/load/load.ts";
import { type LoadTable, type NodeLoad, newcomer } from "../lib/load/table.ts";
import { AVOID, avoidance, isBetter, SCORE_DEFAULTS, type ScoreOptions } from "./score.ts";

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
  const two = pickTwo(list, random).map((endpoint) => candidate(endpoint, table, now));
  const open = two.filter(({ node }) => avoidance(node, now, options) === AVOID.no);
  // Only where both are to be avoided is it worth looking at all the others.
  const [left, right] = open.length > 0 ? open : pickTwo(leastAvoided(list, table, now, options), random);
  if (!left || !right) return left?.endpoint ?? first;
  return isBetter(right.node, left.node, now, options) ? right.endpoint : left.endpoint;
}

/** Two of `list`, all with the same chance; fewer if there are fewer. */
function pickTwo<T>(list: readonly T[], random: () => number): T[] {
  const a = Math.floor(random() * list.length);
  const b = Math.floor(random() * (list.length - 1));
  // Any but `a`.
  return [list[a], list[b < a ? b : b + 1]].filter((each): each is T => each !== undefined);
}

function candidate<E extends { readonly id: string }>(
  endpoint: E,
  table: LoadTable,
  now: number,
): Candidate<E> {
  return { endpoint, node: table.get(endpoint.id) ?? newcomer(now) };
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
    const each = candidate(endpoint, table, now);
    const reason = avoidance(each.node, now, options);
    if (reason > least) continue;
    if (reason < least) open = [];
    least = reason;
    open.push(each);
  }
  return open;
}
