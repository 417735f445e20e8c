import { readFileSync } from "node:fs";

/** How many requests come when. */
export interface Trace {
  readonly name: string;
  readonly seconds: number;
  /** Requests a second, at a second from the start. */
  rate(second: number): number;
}

const HOUR = 3600;
const DAY = 24 * HOUR;

/**
 * A day with its night, peaking at `peak` requests a second in the evening; a second, lower hump at noon. The shape of
 * public traffic as, for instance, the Wikipedia traces have it (Urdaneta et al., 2009): a factor of about 4 between
 * night and evening.
 */
export function diurnal(peak: number): Trace {
  const shape = (hour: number) => 0.25 + 0.45 * hump(hour, 12.5, 3.5) + 0.75 * hump(hour, 20, 2.5);
  const most = Math.max(...Array.from({ length: 240 }, (_, tenth) => shape(tenth / 10)));
  return { name: "diurnal", seconds: DAY, rate: (second) => (peak * shape(second / HOUR)) / most };
}

/** Two hours at a fifth of `peak`, with a burst to all of it every twenty minutes that lasts three. */
export function burst(peak: number): Trace {
  return {
    name: "burst",
    seconds: 2 * HOUR,
    rate: (second) => (second >= 600 && (second - 600) % 1200 < 180 ? peak : peak / 5),
  };
}

/** A flash crowd: quiet, then within ten seconds ten times as many, halved again every ten minutes. */
export function flash(peak: number): Trace {
  const quiet = peak / 10;
  return {
    name: "flash",
    seconds: HOUR,
    rate(second) {
      const since = second - 600;
      if (since < 0) return quiet;
      if (since < 10) return quiet + ((peak - quiet) * since) / 10;
      return quiet + (peak - quiet) * 0.5 ** ((since - 10) / 600);
    },
  };
}

/**
 * From a file of lines `second,requests per second`, in rising order; in between the rate is interpolated. A first line
 * that is not numbers is a heading.
 *
 * @throws RangeError naming the line that cannot be understood
 */
export function fromCsv(file: string): Trace {
  const lines = readFileSync(file, "utf8").split(/\r?\n/);
  const points: { at: number; rate: number }[] = [];
  for (const [index, line] of lines.entries()) {
    if (line.trim() === "") continue;
    const [at = Number.NaN, rate = Number.NaN, ...more] = line
      .split(",")
      .map((cell) => Number(cell.trim() || NaN));
    const rises = at > (points.at(-1)?.at ?? -1);
    if (rises && Number.isFinite(at) && Number.isFinite(rate) && rate >= 0 && more.length === 0) {
      points.push({ at, rate });
    } else if (index > 0) {
      throw new RangeError(
        `${file}:${index + 1}: expected "second,requests per second" in rising order but received "${line.slice(0, 80)}"`,
      );
    }
  }
  const last = points.at(-1);
  if (!last || points.length < 2) throw new RangeError(`${file}: expected at least two points`);
  return {
    name: file.replace(/^.*\/|\.[^.]*$/g, ""),
    seconds: last.at,
    rate(second) {
      const next = points.findIndex(({ at }) => at > second);
      const [before, after] = [points[next - 1], points[next]];
      if (!before || !after) return next === 0 ? (after?.rate ?? 0) : last.rate;
      return before.rate + ((after.rate - before.rate) * (second - before.at)) / (after.at - before.at);
    },
  };
}

export const TRACES: Readonly<Record<string, (peak: number) => Trace>> = { diurnal, burst, flash };

/** A bell of height 1 around `centre`, over a day that begins again. */
function hump(hour: number, centre: number, width: number): number {
  const away = Math.min(Math.abs(hour - centre), 24 - Math.abs(hour - centre));
  return Math.exp(-((away / width) ** 2) / 2);
}
