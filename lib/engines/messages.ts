import type { EngineSpec, Signature } from "./engine.ts";
import type { Tensors } from "./tensors.ts";

/** From the server to an engine's process. */
export type ToChild =
  | { readonly type: "load"; readonly module: string; readonly spec: EngineSpec }
  | { readonly type: "run"; readonly batch: Tensors; readonly count: number }
  | { readonly type: "close" };

/** From an engine's process to the server. */
export type FromChild =
  | { readonly type: "started" }
  | { readonly type: "loaded"; readonly signature: Signature }
  | { readonly type: "refused"; readonly reason: string }
  | { readonly type: "done"; readonly outputs: Tensors; readonly computeMs: number }
  | { readonly type: "failed"; readonly reason: string; readonly computeMs: number };
