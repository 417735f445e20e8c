import { randomUUID } from "node:crypto";
import { z } from "zod";
import { ServingError } from "../errors.ts";
import { MAX_SERVED, type Wishes } from "./policy.ts";

export const version = z.int("a whole number of at least 1").min(1, "a whole number of at least 1");
export const share = z.number().gt(0, "a number above 0").max(1, "a number of at most 1");
const bound = (least: number, most: number) =>
  z.int(`a whole number from ${least} to ${most}`).min(least).max(most).optional();

/** What may be changed of a service's batching while it runs, see `BatcherOptions`. */
export const tuning = z.strictObject({
  maxBatchSize: bound(1, 1_000),
  maxQueueSize: bound(1, 100_000),
  maxQueueDelayMs: z.number().min(0).max(60_000).optional(),
  latencyTargetMs: z.number().min(0).max(60_000).optional(),
  concurrency: bound(1, 64).describe("engines, and so batches at once; the process's cores are a bound, too"),
});

export type Tuning = z.infer<typeof tuning>;

const refusal = z.strictObject({ version, fingerprint: z.string().min(1).max(128) });

/**
 * What people, and versions that failed, have decided about one model service. Every replica has the newest that it has
 * heard of and publishes it; whoever sees one replica behind another tells it. So it outlives any one of them.
 */
export const control = z.strictObject({
  /** Grows with each change: the higher one counts. */
  revision: z.int().min(1).max(Number.MAX_SAFE_INTEGER),
  /** Of the change: of two with one revision, made at the same time, the greater counts. */
  id: z.string().min(1).max(64),
  /** Who made the last change, and what it was, for people. */
  by: z.string().max(200),
  what: z.string().max(500),
  load: z.array(version).max(MAX_SERVED),
  unload: z.array(version).max(64),
  refused: z.array(refusal).max(32),
  stable: version.optional(),
  canary: z.strictObject({ version, share }).optional(),
  tuning,
});

export type Control = Readonly<z.infer<typeof control>>;

export type Label = "stable" | "canary";
export const LABELS: readonly Label[] = ["stable", "canary"];

/** One change, as it is asked for. */
export type Change =
  | { readonly op: "load" | "unload"; readonly version: number }
  | { readonly op: "refuse"; readonly version: number; readonly fingerprint: string; readonly reason: string }
  | {
      readonly op: "label";
      readonly label: Label;
      /** Null takes the label away. */
      readonly version: number | null;
      /** Of requests, for `canary`. */
      readonly share?: number | undefined;
    }
  | { readonly op: "rollback"; readonly version: number }
  | { readonly op: "tune"; readonly tuning: Tuning };

/** The one of two that counts. */
export function newer<T extends Control | undefined>(a: T, b: T): T {
  if (!a || !b) return a ?? b;
  if (a.revision !== b.revision) return a.revision > b.revision ? a : b;
  return a.id >= b.id ? a : b;
}

/**
 * `now` with a change.
 *
 * @throws BAD_REQUEST for a change that contradicts what is so
 */
export function changed(now: Control | undefined, change: Change, by: string): Control {
  const { load = [], unload = [], refused = [], stable, canary, tuning = {} } = now ?? {};
  const state = { load, unload, refused, stable, canary, tuning };
  const next = { ...state, ...effect(state, change) };
  return {
    revision: (now?.revision ?? 0) + 1,
    id: randomUUID(),
    by: by.slice(0, 200),
    what: inWords(change).slice(0, 500),
    load: next.load,
    unload: next.unload,
    refused: next.refused,
    ...(next.stable === undefined ? {} : { stable: next.stable }),
    ...(next.canary === undefined ? {} : { canary: next.canary }),
    tuning: next.tuning,
  };
}

type State = Omit<Control, "revision" | "id" | "by" | "what" | "stable" | "canary"> & {
  readonly stable: number | undefined;
  readonly canary: Control["canary"] | undefined;
};

function effect(state: State, change: Change): Partial<State> {
  const { load, unload, refused, stable, canary } = state;
  switch (change.op) {
    case "load":
      return {
        load: [...without(load, change.version), change.version].slice(-MAX_SERVED),
        unload: without(unload, change.version),
        // Who loads it wants it tried again.
        refused: refused.filter((each) => each.version !== change.version),
      };
    case "unload":
      for (const [label, labelled] of [["stable", stable] as const, ["canary", canary?.version] as const]) {
        if (labelled !== change.version) continue;
        throw new ServingError(
          "BAD_REQUEST",
          `Version ${change.version} is ${label}: give that label to another first`,
        );
      }
      return {
        load: without(load, change.version),
        unload: [...without(unload, change.version), change.version].slice(-64),
      };
    case "refuse": {
      const { version, fingerprint } = change;
      return {
        load: without(load, version),
        refused: [
          ...refused.filter((each) => each.fingerprint !== fingerprint),
          { version, fingerprint },
        ].slice(-32),
        stable: stable === version ? undefined : stable,
        canary: canary?.version === version ? undefined : canary,
      };
    }
    case "label":
      if (change.label === "stable") return { stable: change.version ?? undefined };
      if (change.version === null) return { canary: undefined };
      if (change.share === undefined) {
        throw new ServingError("BAD_REQUEST", "Expected a share above 0 and at most 1 for the label canary");
      }
      return { canary: { version: change.version, share: change.share } };
    case "rollback":
      return { stable: change.version, canary: undefined, unload: without(unload, change.version) };
    case "tune":
      return { tuning: { ...state.tuning, ...change.tuning } };
  }
}

/** What versions are wanted by it. */
export function wishesOf({ load, unload, refused, stable, canary }: Control): Wishes {
  return {
    load,
    unload,
    refused: refused.map(({ fingerprint }) => fingerprint),
    stable,
    canary: canary?.version,
  };
}

function inWords(change: Change): string {
  switch (change.op) {
    case "load":
    case "unload":
      return `${change.op} version ${change.version}`;
    case "refuse":
      return `take back version ${change.version}: ${change.reason}`;
    case "label":
      return change.version === null
        ? `take away the label ${change.label}`
        : `label version ${change.version} ${change.label}${change.share === undefined ? "" : `, ${change.share * 100} % of requests`}`;
    case "rollback":
      return `roll back to version ${change.version}`;
    case "tune":
      return `tune ${JSON.stringify(change.tuning)}`;
  }
}

function without(numbers: readonly number[], number: number): number[] {
  return numbers.filter((each) => each !== number);
}
