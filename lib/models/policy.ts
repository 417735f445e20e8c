import { z } from "zod";

const number = z.int("a whole number of at least 1").min(1, "a whole number of at least 1");

/** The most versions that a service serves at once: each has engines of its own. */
export const MAX_SERVED = 16;

/**
 * Which of the versions that are there a service serves, as in TensorFlow Serving and Triton: the newest so many, all
 * (at most {@link MAX_SERVED}, the newest), or certain ones.
 */
export const versionPolicy = z.union(
  [
    z.literal("all"),
    z.strictObject({ latest: number.max(MAX_SERVED) }),
    z.strictObject({ specific: z.array(number).min(1).max(MAX_SERVED) }),
  ],
  `"all", {"latest": n} or {"specific": [versions]}, of at most ${MAX_SERVED} versions`,
);

export type VersionPolicy = z.infer<typeof versionPolicy>;

/**
 * The versions to serve, the newest first.
 *
 * @param there in any order
 */
export function selected(policy: VersionPolicy, there: readonly number[]): number[] {
  const newestFirst = [...new Set(there)].sort((a, b) => b - a);
  if (policy === "all") return newestFirst.slice(0, MAX_SERVED);
  if ("latest" in policy) return newestFirst.slice(0, policy.latest);
  return newestFirst.filter((version) => policy.specific.includes(version));
}

/** What is asked of a service besides its policy. */
export interface Wishes {
  /** Served whatever the policy says. */
  readonly load: readonly number[];
  /** Not served, unless nothing else is left. */
  readonly unload: readonly number[];
  /** Fingerprints that were taken back somewhere: never served. */
  readonly refused: readonly string[];
  /** Who names no version gets this one, if it is ready. */
  readonly stable?: number | undefined;
  /** Served besides what the policy says, which is applied to the others. */
  readonly canary?: number | undefined;
}
