import { spawnSync } from "node:child_process";
import { installed } from "./debian.ts";

/** The path of Prometheus' `promtool`, of Debian's package. */
export async function promtool(): Promise<string> {
  const path = await installed(["/usr/bin/promtool", "/usr/local/bin/promtool"], "prometheus");
  if (!path) throw new Error("Expected promtool: `apt-get install prometheus`");
  return path;
}

/** What `promtool check metrics` has to say of a scrape; empty where all is well. */
export function checkMetrics(path: string, text: string): string {
  const { stdout, stderr, error } = spawnSync(path, ["check", "metrics"], { input: text, encoding: "utf8" });
  if (error) throw error;
  return `${stdout}${stderr}`;
}
