import { run } from "./run.ts";

const broker = await run();
broker?.repl();
