/**
 * One version of one model, as it travels with every request and answer. What was prepared for one version is never
 * computed by another, and what one computed is never taken for another's.
 */
export interface ModelId {
  readonly name: string;
  readonly version: number;
  /** sha256 over the manifest and the digests of its files, lower-case hex: two that are equal compute the same. */
  readonly fingerprint: string;
}

/** Digits of a fingerprint in the names of routes: enough to tell two versions of one number apart. */
const ROUTE_DIGITS = 8;

/** What names a version in its action, `3-1f0a92bc.<service>.predict`. */
export function routeOf({ version, fingerprint }: Pick<ModelId, "version" | "fingerprint">): string {
  return `${version}-${fingerprint.slice(0, ROUTE_DIGITS)}`;
}
