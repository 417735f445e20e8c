import "./no-telemetry.ts";
import { writeFileSync } from "node:fs";
import type { LoadRuntime, Runtime } from "./engine.ts";
import type { FromChild, ToChild } from "./messages.ts";

/**
 * The process an engine lives in. It loads one model and computes one batch after the other; it says nothing unasked
 * but that it has started.
 */
let runtime: Runtime | undefined;

// Ctrl-C reaches every process of the terminal: what runs is finished, and the server ends this one when it drains.
process.on("SIGINT", () => {});
process.on("SIGTERM", () => {});
// The server is gone, however it went. `exit` would wait for the runtime's threads.
process.on("disconnect", () => process.kill(process.pid, "SIGKILL"));
try {
  // When the machine runs out of memory, an engine is to go before the server: it is replaced, and nobody notices.
  writeFileSync("/proc/self/oom_score_adj", "800");
} catch {
  // Not Linux.
}

const send = (message: FromChild) => process.send?.(message);

process.on("message", async (message: ToChild) => {
  switch (message.type) {
    case "load":
      try {
        const { default: load } = (await import(message.module)) as { default: LoadRuntime };
        runtime = await load(message.spec);
        send({ type: "loaded", signature: runtime.signature });
      } catch (error) {
        send({ type: "refused", reason: (error as Error).message });
      }
      return;
    case "run": {
      const began = performance.now();
      try {
        const outputs = await runtime?.run(message.batch, message.count);
        if (!outputs) throw new Error("No model is loaded");
        send({ type: "done", outputs, computeMs: performance.now() - began });
      } catch (error) {
        send({ type: "failed", reason: (error as Error).message, computeMs: performance.now() - began });
      }
      return;
    }
    case "close":
      await runtime?.close();
      process.exit(0);
  }
});

send({ type: "started" });
