/** Says which bars of a model were met; the command fails if one was not. */
export function tellBars(bars: readonly (readonly [bar: string, met: boolean])[]): void {
  for (const [bar, met] of bars) console.log(`${met ? "met" : "MISSED"}: ${bar}`);
  if (bars.some(([, met]) => !met)) process.exitCode = 1;
}
