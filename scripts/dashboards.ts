import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { BOARDS } from "../monitoring/boards.ts";

/**
 * Writes Grafana's dashboards to `monitoring/dashboards/` from the table of metrics and `monitoring/boards.ts`; with
 * `--check` only says whether they still agree.
 */
const FOLDER = resolve(import.meta.dirname, "../monitoring/dashboards");

const check = process.argv.includes("--check");
mkdirSync(FOLDER, { recursive: true });
for (const board of BOARDS) {
  const file = resolve(FOLDER, `${board.uid}.json`);
  const text = `${JSON.stringify(board, null, 2)}\n`;
  if (check && (readFileSync(file, "utf8") as string) !== text) {
    console.error(`${file} is not what \`npm run dashboards\` makes of the code`);
    process.exitCode = 1;
  } else if (!check) writeFileSync(file, text);
}
