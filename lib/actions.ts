import type { CallingOptions, Context, ServiceBroker } from "moleculer";
import type { Control } from "./models/control.ts";
import type { AskParams, AskResult, PredictParams, PredictResult, VersionReport } from "./types.ts";

/** Every action that services of ours call, with its parameters and result: a call is checked against it. */
export interface Actions {
  /** Asks models about inputs as they came in. */
  readonly "dispatcher.ask": { readonly params: AskParams; readonly result: AskResult };
  /** Changes something for the host, see `lib/models/admin.ts`. */
  readonly [op: `dispatcher.admin.${string}`]: { readonly params: object; readonly result: object };
  /** Tells a node what was decided about a model that it serves; what is in force there then. */
  readonly "$node.control": { readonly params: ControlParams; readonly result: Control };
  /** Has a node look for new versions now, and says what it has then. */
  readonly "$node.refresh": {
    readonly params: { readonly model: string };
    readonly result: readonly VersionReport[];
  };
  /** Has a node take no more work, for good. */
  readonly "$node.drain": { readonly params: object; readonly result: null };
  /** Computes prepared items: of one version, or of whichever is served first. */
  readonly [model: `${string}.predict`]: { readonly params: PredictParams; readonly result: PredictResult };
}

export interface ControlParams {
  readonly model: string;
  readonly control: Control;
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
