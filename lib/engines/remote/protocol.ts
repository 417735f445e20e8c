import type { Signature } from "../engine.ts";
import type { TensorSpec, Tensors } from "../tensors.ts";

export interface HttpRequest {
  readonly method: "GET" | "POST";
  /** Without the server's prefix. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | string;
}

export interface HttpResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
}

/** How a model on another server is asked. Plain functions of requests and responses. */
export interface RemoteProtocol {
  /** Name for people. */
  readonly name: string;
  /** Whether it can be asked now. */
  ready(): HttpRequest;
  isReady(response: HttpResponse): boolean;
  metadata(): HttpRequest;
  /**
   * @returns what the server says of inputs and outputs; undefined: nothing
   * @throws Error if it says what cannot be
   */
  signature(response: HttpResponse): Pick<Signature, "inputs" | "outputs"> | undefined;
  infer(batch: Tensors, outputs: readonly TensorSpec[]): HttpRequest;
  /** @throws Error for an answer that is none */
  outputs(response: HttpResponse, outputs: readonly TensorSpec[]): Tensors;
  /** What a response that is no answer says went wrong. */
  fault(response: HttpResponse): string;
}

const MAX_FAULT = 200;

/** @throws Error if it is no JSON object */
export function jsonOf(body: Uint8Array): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    throw new Error("its answer is no JSON");
  }
  if (typeof value !== "object" || value === null) throw new Error("its answer is no JSON object");
  return value as Readonly<Record<string, unknown>>;
}

/** The text under `error`, which both protocols have; else the status alone. */
export function faultOf({ status, body }: HttpResponse): string {
  try {
    const { error } = jsonOf(body);
    if (typeof error === "string") return `${error.slice(0, MAX_FAULT)} (status ${status})`;
  } catch {
    // It need not be JSON.
  }
  return `status ${status}`;
}
