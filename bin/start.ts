import "./compile-cache.js";

// Imported late: what is imported with this file is compiled before anything of it runs.
const { run } = await import("./run.ts");
await run();
