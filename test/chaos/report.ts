import { inspect } from "node:util";
import type { Summary } from "./load.ts";

/**
 * What can be missed. `fast`, `pace` and `fair` are judged by time, which other work on the machine takes: these alone are
 * worth another try.
 */
export type Bar =
  /** Every request had its answer. */
  | "answered"
  /** Every answer was the one to that photo. */
  | "right"
  /** The slowest request was as fast as it must be. */
  | "fast"
  /** Throughput under overload, and the return to normal. */
  | "pace"
  /** One model does not wait for another. */
  | "fair"
  /** Every process serves again. */
  | "alive"
  /** Processes that were told to stop ended in good order. */
  | "orderly"
  /** What kills is found out, in few attempts. */
  | "convicted"
  /** Refusals are the right ones, memory stays bounded. */
  | "bounded"
  /** The event itself could be carried out. */
  | "run";

const TIMED: ReadonlySet<Bar> = new Set<Bar>(["fast", "pace", "fair"]);

/** A bar that was missed, and by what. */
export interface Miss {
  readonly bar: Bar;
  readonly why: string;
}

/** What became of one event. */
export interface Outcome extends Summary {
  readonly event: string;
  readonly about: string;
  /** Slowest request before the event, milliseconds. */
  readonly normalMs?: number;
  /** Bars that were missed. */
  readonly missed: readonly Miss[];
  /** More figures. */
  readonly notes: readonly string[];
  /** Why it was not run. */
  readonly skipped?: string;
}

/**
 * Whether the run was not as it must be.
 * @param toMiss the bar that must be missed, where its mechanism is off: any other proves nothing
 */
export function isWrong({ skipped, missed }: Pick<Outcome, "skipped" | "missed">, toMiss?: Bar): boolean {
  if (skipped !== undefined) return false;
  return toMiss === undefined ? missed.length > 0 : missed.every(({ bar }) => bar !== toMiss);
}

/**
 * Whether a run that went wrong may be repeated: if it was only too slow, never after a lost or wrong answer. A proof is
 * of what may happen: one run that shows it is enough.
 */
export function mayRepeat({ missed }: Pick<Outcome, "missed">, toMiss?: Bar): boolean {
  return toMiss !== undefined || missed.every(({ bar }) => TIMED.has(bar));
}

const COLUMNS = { event: 20, requests: 9, failed: 7, slowest: 9, normal: 9 };

export function header(): string {
  return row("event", "requests", "failed", "slowest", "normal", "bar");
}

export function line(outcome: Outcome): string {
  const { event, requests, failed, slowestMs, normalMs, skipped } = outcome;
  if (skipped !== undefined) return row(event, "–", "–", "–", "–", `skipped: ${skipped}`);
  return row(event, String(requests), String(failed), ms(slowestMs), ms(normalMs), verdict(outcome));
}

function verdict({ missed, notes, errors }: Outcome): string {
  const met =
    missed.length === 0 ? "met" : `MISSED: ${missed.map(({ bar, why }) => `${bar}: ${why}`).join("; ")}`;
  const seen =
    Object.keys(errors).length > 0 ? [inspect(errors, { breakLength: Number.POSITIVE_INFINITY })] : [];
  return [met, ...notes, ...seen].join(" · ");
}

function ms(value: number | undefined): string {
  return value === undefined ? "–" : `${Math.round(value)} ms`;
}

function row(event: string, requests: string, failed: string, slowest: string, normal: string, bar: string) {
  return [
    event.padEnd(COLUMNS.event),
    requests.padStart(COLUMNS.requests),
    failed.padStart(COLUMNS.failed),
    slowest.padStart(COLUMNS.slowest),
    normal.padStart(COLUMNS.normal),
    ` ${bar}`,
  ].join(" ");
}
