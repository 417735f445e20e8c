import type { Period, Result } from "./simulation.ts";
import type { Trace } from "./traces.ts";

const WIDTH = 960;
const PANEL = 150;
const GAP = 44;
const LEFT = 64;
const RIGHT = 110;
const POINTS = 480;
const COLOURS: Readonly<Record<string, string>> = { cpu: "#c2410c", rule: "#1d4ed8", queue: "#047857" };
const GREY = "#6b7280";

interface Line {
  readonly name: string;
  readonly colour: string;
  readonly values: readonly number[];
}

/**
 * One picture of all policies over the same trace: arrivals, pods, 99th percentile of the latency, refusals.
 *
 * @returns an SVG document
 */
export function chart(trace: Trace, results: readonly Result[]): string {
  const lines = (read: (period: Period) => number, merge = mean): Line[] =>
    results.map(({ policy, periods }) => ({
      name: policy,
      colour: COLOURS[policy] ?? GREY,
      values: thin(periods.map(read), merge),
    }));
  const [first] = results;
  const panels: [string, Line[], boolean][] = [
    [
      "arrivals, requests/s",
      [
        {
          name: trace.name,
          colour: GREY,
          values: thin(first?.periods.map(({ arrivals }) => arrivals) ?? [], mean),
        },
      ],
      false,
    ],
    ["ready pods", lines(({ ready }) => ready), false],
    ["p99 latency, ms (logarithmic)", lines(({ p99Ms }) => p99Ms, max), true],
    ["refused, requests/s", lines(({ refused, late }) => refused + late, max), false],
  ];
  const height = panels.length * (PANEL + GAP) + GAP;
  const body = panels.map(([title, series, isLog], index) =>
    panel(title, series, GAP + index * (PANEL + GAP), isLog, trace.seconds),
  );
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-family="sans-serif" font-size="12">`,
    `<title>Autoscaling policies on the trace ${escapeXml(trace.name)}</title>`,
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    ...body,
    "</svg>",
    "",
  ].join("\n");
}

function panel(title: string, series: readonly Line[], top: number, isLog: boolean, seconds: number): string {
  const all = series.flatMap(({ values }) => values).filter((value) => Number.isFinite(value));
  const most = niceCeiling(Math.max(1, ...all));
  const least = isLog ? Math.max(1, Math.min(...all)) : 0;
  const scale = (value: number) =>
    isLog ? Math.log(Math.max(value, least) / least) / Math.log(most / least) : value / most;
  const y = (value: number) => top + PANEL - PANEL * Math.min(1, scale(value));
  const right = WIDTH - RIGHT;
  const x = (index: number, count: number) => LEFT + ((right - LEFT) * index) / Math.max(1, count - 1);
  const marks = isLog ? [least, Math.sqrt(least * most), most] : [0, most / 2, most];
  const hours = seconds / 3600;
  const step = [0.25, 0.5, 1, 2, 4, 6].find((each) => hours / each <= 8) ?? 24;
  const ticks = Array.from({ length: Math.floor(hours / step) + 1 }, (_, i) => i * step);
  return [
    `<text x="${LEFT}" y="${top - 10}" font-weight="bold" fill="#111">${escapeXml(title)}</text>`,
    ...marks.map(
      (mark) =>
        `<line x1="${LEFT}" x2="${right}" y1="${y(mark).toFixed(1)}" y2="${y(mark).toFixed(1)}" stroke="#e5e7eb"/>` +
        `<text x="${LEFT - 6}" y="${(y(mark) + 4).toFixed(1)}" text-anchor="end" fill="${GREY}">${label(mark)}</text>`,
    ),
    ...ticks.map(
      (hour) =>
        `<text x="${(LEFT + ((right - LEFT) * hour) / hours).toFixed(1)}" y="${top + PANEL + 16}" text-anchor="middle" fill="${GREY}">${hour} h</text>`,
    ),
    ...series.map(({ colour, values }) => {
      const points = values.flatMap((value, index) =>
        Number.isFinite(value) ? [`${x(index, values.length).toFixed(1)},${y(value).toFixed(1)}`] : [],
      );
      return `<polyline fill="none" stroke="${colour}" stroke-width="1.5" points="${points.join(" ")}"/>`;
    }),
    ...series.map(
      ({ name, colour }, index) =>
        `<text x="${right + 12}" y="${top + 14 + 18 * index}" fill="${colour}">${escapeXml(name)}</text>`,
    ),
  ].join("\n");
}

/** At most {@link POINTS} values, each of as many neighbours. */
function thin(values: readonly number[], merge: (values: readonly number[]) => number): number[] {
  const size = Math.max(1, Math.ceil(values.length / POINTS));
  return Array.from({ length: Math.ceil(values.length / size) }, (_, i) =>
    merge(values.slice(i * size, (i + 1) * size).filter((value) => Number.isFinite(value))),
  );
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function max(values: readonly number[]): number {
  return Math.max(...values);
}

/** The next of 1, 2, 5, 10, 20, 50 … */
function niceCeiling(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 5].find((factor) => factor * power >= value) ?? 10) * power;
}

function label(value: number): string {
  return value >= 10_000 ? `${Math.round(value / 1000)}k` : String(Math.round(value * 10) / 10);
}

function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
