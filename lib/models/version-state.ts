import { StateMachine } from "../state-machine.ts";

/**
 * The life of one version of a model in one service:
 *
 *     available ─► loading ─► warming ─► checking ─► ready ─► draining ─► closed
 *         ▲           │          │           │                   │
 *         │           └──────────┴─────┬─────┴───────────────────┘
 *         └─────── (tried again) ◄── failed
 *
 * - `available`: it is there and not wanted, or its turn has not come
 * - `loading`: its files are fetched, their digests compared, and beside others one engine of one thread tries it
 * - `warming`: all its engines load, and compute a batch of one and one of the largest size
 * - `checking`: the golden examples
 * - `ready`: whoever asks for it is answered
 * - `draining`: nobody is sent to it any more; what comes nevertheless is answered
 * - `failed`: it never took over, or was taken back
 */
export type VersionState =
  | "available"
  | "loading"
  | "warming"
  | "checking"
  | "ready"
  | "draining"
  | "closed"
  | "failed";

export const VERSION_MOVES: Readonly<Record<VersionState, readonly VersionState[]>> = {
  available: ["loading", "closed"],
  loading: ["warming", "failed"],
  warming: ["checking", "failed"],
  checking: ["ready", "failed"],
  ready: ["draining"],
  draining: ["closed", "failed"],
  closed: [],
  failed: ["loading", "closed"],
};

export function versionState(of: string): StateMachine<VersionState> {
  return new StateMachine(of, VERSION_MOVES, "available");
}
