import {
  CancelledError,
  DeadlineExceededError,
  EngineCrashedError,
  ModelUnavailableError,
  PredictionFailedError,
  ServingError,
} from "../../errors.ts";
import type { Engine, EngineSpec, RunScope, Signature } from "../engine.ts";
import type { Tensors } from "../tensors.ts";
import { openInference } from "./open-inference.ts";
import type { Remote } from "./part.ts";
import type { HttpResponse, RemoteProtocol } from "./protocol.ts";
import { RemoteServer, ResponseTooLargeError } from "./server.ts";
import { type Target, targetOf } from "./target.ts";
import { tensorflowServing } from "./tensorflow-serving.ts";

const PROTOCOLS = { "open-inference": openInference, "tensorflow-serving": tensorflowServing } as const;

/** It would compute if it were not for others, or what stands before it says that of it. */
const BUSY: ReadonlySet<number> = new Set([429, 502, 503, 504]);
/** It does not know the model, or us: no input is to blame. */
const LOST: ReadonlySet<number> = new Set([401, 403, 404]);

/** The engines of a model that another server computes. */
export interface RemoteEngines {
  /** Batches asked at once. */
  readonly concurrency: number;
  readonly create: (spec: EngineSpec) => Engine;
  /** Ends the connections, after all engines. */
  close(): Promise<void>;
}

/**
 * @param name of the model here
 * @throws StartError if nobody says where the server is
 */
export function remoteEngines(name: string, remote: Remote | undefined): RemoteEngines {
  if (!remote) throw new Error(`Expected "remote" in the manifest of ${name}`);
  const target = targetOf(name, remote);
  const protocol = PROTOCOLS[target.protocol](target);
  const server = new RemoteServer(target, protocol);
  return {
    concurrency: target.concurrency,
    create: (spec) => new RemoteEngine(name, spec, target, protocol, server),
    close: () => server.close(),
  };
}

/**
 * One batch at a time, asked of another server. It is gone when the server says that it is not ready, or nothing; the
 * next one is loaded when it is again.
 */
class RemoteEngine implements Engine {
  readonly #name: string;
  readonly #spec: EngineSpec;
  readonly #target: Target;
  readonly #protocol: RemoteProtocol;
  readonly #server: RemoteServer;
  readonly #gone = Promise.withResolvers<string>();
  readonly #closing = new AbortController();
  #unwatch = () => {};
  #running: Promise<unknown> | undefined;

  constructor(
    name: string,
    spec: EngineSpec,
    target: Target,
    protocol: RemoteProtocol,
    server: RemoteServer,
  ) {
    this.#name = name;
    this.#spec = spec;
    this.#target = target;
    this.#protocol = protocol;
    this.#server = server;
  }

  get gone(): Promise<string> {
    return this.#gone.promise;
  }

  async load(signal: AbortSignal): Promise<Signature> {
    try {
      const either = AbortSignal.any([signal, this.#closing.signal]);
      await this.#server.assertReady(either);
      const response = await this.#server.request(
        this.#protocol.metadata(),
        either,
        this.#target.maxResponseBytes,
      );
      // One that says nothing of its tensors is believed until warm-up.
      const { inputs, outputs } = this.#protocol.signature(response) ?? this.#spec;
      this.#unwatch = this.#server.watch((reason) => this.#end(reason));
      return { engine: `${this.#protocol.name} at ${this.#target.origin}`, inputs, outputs };
    } catch (error) {
      throw this.#lost(`its server cannot be asked: ${reasonOf(error)}`);
    }
  }

  run(batch: Tensors, count: number, scope: RunScope): Promise<Tensors> {
    const run = this.#run(batch, count, scope);
    this.#running = run.catch(() => {});
    return run;
  }

  async close(): Promise<void> {
    await this.#running;
    this.#closing.abort(new Error("it is closed"));
    this.#end("it is closed");
  }

  async #run(batch: Tensors, _: number, { deadline, signal }: RunScope): Promise<Tensors> {
    const { timeoutMs, maxResponseBytes } = this.#target;
    const leftMs = deadline - performance.now();
    if (leftMs <= 0) throw new DeadlineExceededError("compute");
    const timeout = AbortSignal.timeout(Math.ceil(Math.min(leftMs, timeoutMs)));
    const signals = [timeout, this.#closing.signal, ...(signal ? [signal] : [])];
    try {
      const request = this.#protocol.infer(batch, this.#spec.outputs);
      const response = await this.#server.request(request, AbortSignal.any(signals), maxResponseBytes);
      return this.#answer(response);
    } catch (error) {
      if (error instanceof ServingError) throw error;
      if (error instanceof ResponseTooLargeError) throw new PredictionFailedError(this.#name, error.message);
      if (signal?.aborted) throw new CancelledError();
      if (timeout.aborted && leftMs <= timeoutMs) throw new DeadlineExceededError("compute");
      const reason = timeout.aborted ? `its server did not answer in ${timeoutMs} ms` : reasonOf(error);
      this.#end(reason);
      throw this.#lost(reason);
    }
  }

  #answer(response: HttpResponse): Tensors {
    const { status } = response;
    if (status === 200) {
      try {
        return this.#protocol.outputs(response, this.#spec.outputs);
      } catch (error) {
        throw new PredictionFailedError(this.#name, reasonOf(error));
      }
    }
    if (BUSY.has(status)) throw new ModelUnavailableError(this.#name);
    const fault = this.#protocol.fault(response);
    if (!LOST.has(status)) throw new PredictionFailedError(this.#name, fault);
    this.#end(fault);
    throw this.#lost(fault);
  }

  /** What it was asked has not to do with it: no input is taken for poison. */
  #lost(reason: string): EngineCrashedError {
    return new EngineCrashedError(this.#name, reason, { killed: true });
  }

  #end(reason: string): void {
    this.#unwatch();
    this.#gone.resolve(reason);
  }
}

function reasonOf(error: unknown): string {
  const { message, code } = error as { readonly message?: string; readonly code?: string };
  return message || code || String(error);
}
