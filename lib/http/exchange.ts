import type { IncomingMessage, ServerResponse } from "node:http";
import type { Context } from "moleculer";
import type { Answer } from "./answer.ts";

/** A request as moleculer-web hands it to an alias. */
export interface RoutedRequest extends IncomingMessage {
  /** Path and query as the client sent them. */
  readonly originalUrl: string;
  readonly $ctx: Context;
  /** `params`: the parameters in the path, decoded. */
  readonly $params: { readonly params: Readonly<Record<string, string>> };
}

/** One request on its way to an answer. */
export interface Exchange {
  readonly req: RoutedRequest;
  readonly res: ServerResponse;
  readonly requestId: string;
  /** When its head was read, on the clock of `performance.now()`. */
  readonly startedAt: number;
  /** Aborts when the client goes away without its answer. */
  readonly hungUp: AbortSignal;
}

export type Handler = (exchange: Exchange) => Answer | Promise<Answer>;
