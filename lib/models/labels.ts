import { createHash } from "node:crypto";
import { VersionNotFoundError } from "../errors.ts";
import type { KnownModel, KnownVersion } from "./catalog.ts";
import { LABELS, type Label } from "./control.ts";

/** What a request says of the version that is to answer it. */
export interface Choice {
  /** A version's number, or a label; undefined: as the labels say. */
  readonly wanted?: string | undefined;
  /** Requests with one key have one version, while labels do not change. */
  readonly key: string;
}

/**
 * Which version answers a request.
 *
 * A label names a version for all replicas at once, but they load it one after the other: so it moves here when every
 * replica of the model has the version, and not before. From then on it stays, also while a replica that has just
 * started has not got so far: that one is sent nothing of it meanwhile. A version that nobody serves any more has no
 * label.
 */
export class Labels {
  /** By model and label, the number it is at. */
  readonly #at = new Map<string, number>();

  /**
   * @param versions those of the model that may be asked, all with replicas, in the catalog's order; at least one
   * @throws VERSION_NOT_FOUND if the request names what is not there
   */
  choose(
    model: KnownModel,
    versions: readonly KnownVersion[],
    { wanted, key }: Choice,
  ): KnownVersion | undefined {
    const { name } = model;
    if (wanted === "canary" || wanted === undefined) {
      const canary = this.#labelled(model, versions, "canary");
      const share = model.control?.canary?.share ?? 0;
      if (canary && (wanted !== undefined || drawOf(name, key) < share)) return canary;
      if (wanted !== undefined) throw new VersionNotFoundError(name, wanted);
    }
    if (wanted === undefined || wanted === "stable") return this.#stable(model, versions, key);
    const named = versions.find(({ id }) => String(id.version) === wanted);
    if (!named) throw new VersionNotFoundError(name, wanted);
    return named;
  }

  #stable(model: KnownModel, versions: readonly KnownVersion[], key: string): KnownVersion | undefined {
    const labelled = this.#labelled(model, versions, "stable");
    if (labelled) return labelled;
    const canary = model.control?.canary?.version;
    const others = versions.filter(({ id }) => id.version !== canary);
    return newestOfAll(others.length > 0 ? others : versions, key);
  }

  /** Where the label is; undefined: at no version that is served. */
  #labelled(model: KnownModel, versions: readonly KnownVersion[], label: Label): KnownVersion | undefined {
    const { name, control } = model;
    const key = `${name} ${label}`;
    const to = label === "stable" ? control?.stable : control?.canary?.version;
    if (to === undefined) {
      this.#at.delete(key);
      return undefined;
    }
    const target = versions.find(({ id }) => id.version === to);
    if (target && target.replicas.length >= nodesOf(model.versions)) this.#at.set(key, to);
    const at = this.#at.get(key);
    return versions.find(({ id }) => id.version === at);
  }
}

export function isLabel(wanted: string): wanted is Label {
  return LABELS.some((label) => label === wanted);
}

/**
 * The newest version that every replica serves. While there is none, because replicas change one by one, each in
 * proportion to its replicas, so that all of them have work; and the same for the same key, so that the cache is of use.
 */
function newestOfAll(versions: readonly KnownVersion[], key: string): KnownVersion | undefined {
  const [best] = versions;
  const total = nodesOf(versions);
  if (best && best.replicas.length >= total) return best;
  let at = Math.floor(fraction(key) * total);
  for (const version of versions) {
    at -= version.first.length;
    if (at < 0) return version;
  }
  return best;
}

/** Each replica has one version that is its first. */
function nodesOf(versions: readonly KnownVersion[]): number {
  return versions.reduce((sum, { first }) => sum + first.length, 0);
}

/** From 0 to below 1; with the model's name in it, so that not always the same clients have the canaries of all models. */
function drawOf(model: string, key: string): number {
  return fraction(createHash("sha256").update(`${model}\0${key}`).digest("hex"));
}

/** A digest's first 32 bits, from 0 to below 1. */
function fraction(hex: string): number {
  return Number.parseInt(hex.slice(0, 8), 16) / 2 ** 32;
}
