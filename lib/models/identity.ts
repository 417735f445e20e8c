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
