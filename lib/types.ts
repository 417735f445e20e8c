import type { Tensors } from "./engines/tensors.ts";
import type { WireError } from "./errors.ts";
import type { Input, InputSpec, Inspection } from "./kinds/kind.ts";
import type { Control } from "./models/control.ts";
import type { ModelId } from "./models/identity.ts";
import type { VersionState } from "./models/version-state.ts";

/** What services say to each other: metadata in the registry, parameters and results of actions. */

/** `metadata` of a model service: how dispatcher and gateway find it. */
export interface ModelMetadata {
  readonly kind: "model";
  /** Whether it asks others in turn, and so has to hear of them. */
  readonly asks?: true;
  /** In plain words, for people. */
  readonly question: string;
  /** What this replica serves. Who names no version gets the first. */
  readonly versions: readonly ServedVersion[];
  /** What this replica knows of the model's versions, also of those it does not serve. */
  readonly reports?: readonly VersionReport[];
  /** What people have decided about it, as far as this replica has heard. */
  readonly control?: Control;
  readonly batching: BatchingBounds;
}

/** One version of a model in one replica, for people. */
export interface VersionReport {
  /** Absent: the repository as a whole. */
  readonly version?: number;
  readonly fingerprint?: string;
  readonly state: VersionState;
  /** Why it does not serve, without paths of the server. */
  readonly error?: string;
}

/** One version of a model as a service serves it: all that a dispatcher needs to ask it and to answer from it. */
export interface ServedVersion {
  readonly id: ModelId;
  /** The action that computes this version and no other. */
  readonly action: string;
  /** It has just taken over and is not proven: who can asks another version where it fails. */
  readonly trial?: true;
  /** What computes it, for people: `ONNX Runtime 1.30.0`; before it is loaded the name of its runtime. */
  readonly engine?: string;
  /** What computes it is away, or dies again and again: who asks would be refused. */
  readonly down?: true;
  readonly input: InputSpec;
  readonly task: {
    readonly name: string;
    /** The task's `spec`: labels … */
    readonly spec: object;
    /** The task's `question`: a group of labels, a threshold … */
    readonly question: unknown;
  };
}

export interface BatchingBounds {
  readonly maxBatchSize: number;
  readonly maxQueueSize: number;
  readonly maxQueueDelayMs: number;
  /** Batches computed at once. */
  readonly concurrency: number;
}

/** Why a batch left the queue. */
export type DispatchReason = "full" | "idle" | "delay" | "deadline";

/** What happened to one item on its way through the batcher. Times in milliseconds. */
export interface ItemReport {
  /** 0: it was computed in no batch, but is a kept answer. */
  readonly batchSize: number;
  /** Why its batch left the queue. */
  readonly dispatchReason?: DispatchReason;
  readonly timing: { readonly queueMs: number; readonly computeMs: number };
}

/** Parameters of every model's `predict`. */
export interface PredictParams {
  /** What the items were prepared for. Absent: whatever is served first, for people at a REPL. */
  readonly model?: ModelId;
  readonly count: number;
  /** `count` prepared items, batch first, under the names of their kind. */
  readonly tensors: Tensors;
  /** The client wants nothing kept: for who asks others in turn. */
  readonly noStore?: boolean;
}

export type Settled<T> = ({ readonly ok: true } & T) | { readonly ok: false; readonly error: WireError };

/** One item's output of a network, and what happened to it. `output` is what its task interprets, no answer yet. */
export type PredictedItem = { readonly output: unknown } & ItemReport;

/** Result of every model's `predict`: one entry for each item, in their order. */
export interface PredictResult {
  readonly model: ModelId;
  readonly node: string;
  readonly items: readonly Settled<PredictedItem>[];
}

/** Parameters of the dispatcher's `predict`. */
export interface AskParams {
  /** Name of the inputs' kind. */
  readonly kind: string;
  /** At least one. */
  readonly inputs: readonly Input[];
  /** Names of model services, without repeats; absent: every model that takes this kind. */
  readonly models?: readonly string[];
  /** Neither read nor fill the cache. */
  readonly noStore?: boolean;
  /** A version's number, or a label. Absent: the stable one, or the canary by its share. */
  readonly version?: string;
  /** Requests with one key have one version while labels do not change. Absent: those with one content. */
  readonly key?: string;
}

/** One model's word on one input: how it came about, beside its task's answer. */
export type ModelAnswer = Provenance | { readonly error: WireError };

export interface Provenance extends ItemReport {
  readonly model: Pick<ModelId, "name" | "version">;
  /** Who computed it; of a kept answer: who kept it. */
  readonly node: string;
  readonly cached?: true;
}

/** One input's answers by model service name, or why it could not be read. */
export type ItemAnswer =
  | {
      readonly info: Inspection;
      readonly results: Readonly<Record<string, ModelAnswer>>;
      readonly timing: { readonly decodeMs: number };
    }
  | { readonly error: WireError };

/** Result of the dispatcher's `predict`: one entry for each input, in their order. */
export interface AskResult {
  readonly items: readonly ItemAnswer[];
}
