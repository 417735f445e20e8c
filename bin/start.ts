import { run } from "../lib/run.ts";

await run();
