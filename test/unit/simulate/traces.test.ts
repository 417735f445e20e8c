import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { burst, diurnal, flash, fromCsv } from "../../../simulate/traces.ts";

const folder = mkdtempSync(join(tmpdir(), "traces-"));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

test.each([diurnal(1000), burst(1000), flash(1000)])(
  "$name reaches its peak and no more, and never falls below zero",
  ({ seconds, rate }) => {
    const rates = Array.from({ length: seconds }, (_, second) => rate(second));
    expect(Math.max(...rates)).toBeCloseTo(1000, -1);
    expect(Math.min(...rates)).toBeGreaterThan(0);
  },
);

test("a file's rates are joined by straight lines", () => {
  const trace = fromCsv(file("good.csv", "second,rate\n0,10\n100,20\n200,0\n"));
  expect([trace.rate(0), trace.rate(50), trace.rate(150), trace.rate(500)]).toEqual([10, 15, 10, 0]);
  expect([trace.name, trace.seconds]).toEqual(["good", 200]);
});

test.each([
  ["a word", "0,1\n5,many\n", ":2:"],
  ["time that goes back", "0,1\n5,2\n4,3\n", ":3:"],
  ["a negative rate", "0,1\n5,-2\n", ":2:"],
  ["a third column", "0,1\n5,2,3\n", ":2:"],
  ["nothing", "", "at least two points"],
])("%s in a file is refused, with its line", (name, text, said) => {
  expect(() => fromCsv(file(`${name}.csv`, text))).toThrow(said);
});
