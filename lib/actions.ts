import type { CallingOptions, Context, ServiceBroker } from "moleculer";
import type { AskParams, AskResult, PredictParams, PredictResult } from "./types.ts";

/** Every action that services of ours call, with its parameters and result: a call is checked against it. */
export interface Actions {
  /** Asks models about inputs as they came in. */
  readonly "dispatcher.ask": { readonly params: AskParams; readonly result: AskResult };
  /** Computes prepared items: of one version, or of whichever is served first. */
  readonly [model: `${string}.predict`]: { readonly params: PredictParams; readonly result: PredictResult };
}

export const ASK = "dispatcher.ask";

/** Calls one of {@link Actions}. From a context the call belongs to its request; from the broker it is one of its own. */
export function call<Name extends keyof Actions>(
  from: Pick<Context, "call"> | Pick<ServiceBroker, "call">,
  name: Name,
  params: Actions[Name]["params"],
  options?: CallingOptions,
): Promise<Actions[Name]["result"]> {
  return from.call<Actions[Name]["result"], Actions[Name]["params"]>(name, params, options);
}
