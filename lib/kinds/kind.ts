import type { z } from "zod";
import type { Normalisation } from "../engines/engine.ts";
import type { TensorSpec, Tensors } from "../engines/tensors.ts";
import type { Scope } from "../request/scope.ts";

/** What a model of some kind wants as its input, published in its service's metadata. Kinds extend it; plain data. */
export interface InputSpec {
  /** Name of the kind: `image`, `text`, `ranking`, `tensor` … */
  readonly type: string;
}

/** What is known of an input before it is prepared. Kinds extend it; all of it is shown to the client. */
export interface Inspection {
  /** Digest of all that the prepared input depends on besides the model, lower-case hex: the cache's key. */
  readonly sha256: string;
}

/** One input as the client sent it. */
export interface Input {
  readonly bytes: Uint8Array;
  /** Its content type, lower case and without parameters; one of the kind's `accepts`, or "" if it is not known. */
  readonly type: string;
}

/** How much a kind may take and do at once in one dispatcher; each heeds those that mean something to it. */
export interface KindOptions {
  /** Bytes of one input as it came in. */
  readonly maxBytes: number;
  /** Pixels of one image, decoded. */
  readonly maxPixels?: number;
  /** Inputs prepared at once; absent: as the kind sees fit. */
  readonly concurrency?: number;
  /** Inputs that may wait to be prepared; the next is refused with QUEUE_FULL. */
  readonly maxWaiting?: number;
  /** Told of every process that ended under an input: what it took too much of, or "crash". */
  readonly onDeath?: (reason: string) => void;
}

/** The half of a kind that runs in the dispatcher, where no model is. */
export interface Preparer<Wanted extends InputSpec = InputSpec, Info extends Inspection = Inspection> {
  /**
   * Looks at an input, cheaply and bounded, before anything is decoded.
   *
   * @throws ServingError for an input that no model of the kind could take
   */
  inspect(input: Input, scope: Scope): Promise<Info>;
  /**
   * The tensors of one item, each with a batch dimension of 1, under names of the kind's own. Called once for each
   * distinct `wanted` of the models that are asked.
   *
   * @param onStart called when its turn has come: what came before was waiting
   * @throws ServingError for an input that cannot be prepared
   */
  prepare(input: Input, wanted: Wanted, scope: Scope, onStart?: () => void): Promise<Tensors>;
  /** Whether inputs can be prepared now; absent: always. */
  readonly ready?: boolean;
  close(): Promise<void>;
}

/**
 * What a model's input is about: image, text, … One module for each kind; dispatcher, cache, gateway, batcher and wire
 * know a kind by this alone. The outputs' meaning is not the kind's business but the task's (`lib/tasks`): texts and
 * images are classified alike.
 *
 * Importing a kind loads no decoder: gateway and models need none. `open` does.
 *
 * @template Part the kind's part of a manifest, `name` included
 * @template Wanted what a model of it wants, as its service publishes it
 */
export interface Kind<
  Part = unknown,
  Wanted extends InputSpec = InputSpec,
  Info extends Inspection = Inspection,
> {
  readonly name: Wanted["type"];
  /** Content types of one input, lower case: `image/jpeg`. A body of another type is 415. */
  readonly accepts: readonly string[];
  /** The form field that holds inputs in `multipart/form-data`; several parts are several inputs. Absent: no forms. */
  readonly field?: string;
  /** JSON Schema of a body in `application/json`; absent: the kind takes none. For OpenAPI, the page and checks. */
  readonly schema?: Readonly<Record<string, unknown>>;
  /** What one input is called, in errors and as the key under which its `Info` is shown: `image`. */
  readonly noun: string;
  /** Which of the gateway's limits bounds the bytes of one input. */
  readonly limit: "maxImageBytes" | "maxInputBytes" | "maxVideoBytes";
  /** The manifest's part: type, checks and JSON Schema of it. */
  readonly part: z.ZodType<Part>;
  /** How a part that is right by itself contradicts the model's inputs; one sentence each. */
  contradictions(part: Part, inputs: readonly TensorSpec[]): string[];
  /** What another process may say that its models want: bounds for what `prepare` makes. */
  readonly wanted: z.ZodType;
  /** What a model with this manifest wants. */
  wants(part: Part, inputs: readonly TensorSpec[]): Wanted;
  /** One item as `prepare` makes it for such a model. What comes over the wire is checked by it. */
  prepared(part: Part, inputs: readonly TensorSpec[]): readonly TensorSpec[];
  /**
   * Prepared items as the model's inputs: the kind's names become the graph's. In the model's service.
   *
   * @param items each as {@link prepared} says, with a batch dimension of 1
   * @returns batch first
   */
  collate(items: readonly Tensors[], part: Part, inputs: readonly TensorSpec[]): Tensors;
  /** What `collate` gives the engine where that is not what the graph takes: the engine makes one of the other. */
  feeds?(part: Part, inputs: readonly TensorSpec[]): EngineInputs;
  /** The half that prepares, for a dispatcher. */
  open(options: KindOptions): Promise<Preparer<Wanted, Info>>;
}

/** What an engine is given, where it has to make the graph's inputs of it. */
export interface EngineInputs {
  readonly inputs: readonly TensorSpec[];
  /** By name of an input `[height, width, channels]` uint8 whose graph takes normalised planes instead. */
  readonly planes?: Readonly<Record<string, Normalisation>>;
}
