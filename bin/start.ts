import "./compile-cache.js";
import { misused } from "./cli.ts";

// `npm start -- examples`: services of further folders besides those of SERVICES_DIRS.
const folders = process.argv.slice(2);
const option = folders.find((argument) => argument.startsWith("-"));
if (option)
  misused(
    `Unknown option "${option}": npm start takes folders with services, and settings from the environment`,
  );
if (folders.length > 0) {
  process.env["SERVICES_DIRS"] = [process.env["SERVICES_DIRS"] || "services", ...folders].join(",");
}

// Imported late: what is imported with this file is compiled before anything of it runs.
const { run } = await import("./run.ts");
await run();
