import "./no-telemetry.ts";
import { serveParent } from "../process/child.ts";
import type { LoadRuntime, Runtime } from "./engine.ts";
import type { FromChild, ToChild } from "./messages.ts";

/**
 * The process an engine lives in. It loads one model and computes one batch after the other; it says nothing unasked
 * but that it has started.
 */
let runtime: Runtime | undefined;

serveParent();

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
