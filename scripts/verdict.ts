import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { resolve } from "node:path";

/**
 * Reads jest's reports and prints the closing line, `N passed, N failed`. Fails where a test failed, none ran, or one
 * was skipped although what it needs is here.
 */
interface Report {
  numPassedTests: number;
  numFailedTests: number;
  numFailedTestSuites: number;
  testResults: { assertionResults: { status: string; fullName: string }[] }[];
}

const reports = process.argv.slice(2).map((file) => JSON.parse(readFileSync(file, "utf8")) as Report);
const sum = (count: (report: Report) => number) =>
  reports.reduce((total, report) => total + count(report), 0);
const skipped = reports
  .flatMap(({ testResults }) => testResults)
  .flatMap(({ assertionResults }) => assertionResults)
  .filter(({ status }) => status === "pending" || status === "todo");
for (const { fullName } of skipped) console.log(`skipped: ${fullName}`);

const photos = existsSync(resolve(import.meta.dirname, "../../shared/data/photos"));
const mlserver = spawnSync("scripts/venv.sh", ["--made", "mlserver"]).status === 0;
const excusable = ({ fullName }: { fullName: string }) =>
  (!photos && fullName.includes("../shared")) || (!mlserver && fullName.startsWith("MLServer"));
const unexcused = skipped.filter((test) => !excusable(test));
if (unexcused.length > 0) console.log(`${unexcused.length} skipped tests could have run here`);

const passed = sum(({ numPassedTests }) => numPassedTests);
const failed =
  sum(({ numFailedTests, numFailedTestSuites }) => numFailedTests + numFailedTestSuites) + unexcused.length;
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed > 0 || passed === 0 ? 1 : 0);
