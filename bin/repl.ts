import { run } from "../lib/run.ts";

const broker = await run();
broker?.repl();
