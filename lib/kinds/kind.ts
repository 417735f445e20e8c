import type { TensorSpec, Tensors } from "../engines/tensors.ts";
import type { Scope } from "../request/scope.ts";

/** What a model of this kind wants as its input, published in its service's metadata. Kinds extend it. */
export interface InputSpec {
  /** Name of the kind: `image`, `text`, `ranking`, `tensor` … */
  readonly kind: string;
}

/** What is known of an input before it is prepared. Kinds extend it; what they add is shown to the client. */
export interface Inspection {
  /** Digest of all that the prepared input depends on besides the model, lower-case hex: the cache's key. */
  readonly sha256: string;
}

/** How large an input may be. */
export interface KindLimits {
  /** Bytes of one input as it came in. */
  readonly maxBytes: number;
}

/**
 * What a model's input is about: image, text, … One module for each kind; dispatcher, cache, gateway, batcher and wire
 * know a kind by this alone. The outputs' meaning is not the kind's business but the task's (`lib/tasks`): texts and
 * images are classified alike.
 *
 * The first three run in the gateway and the dispatcher, where no model is; `collate` in the model's service.
 */
export interface Kind<Input extends InputSpec = InputSpec, Info extends Inspection = Inspection> {
  readonly name: Input["kind"];
  /** Content types of one input, lower case: `image/jpeg`. A body of another type is 415. */
  readonly accepts: readonly string[];
  /** The form field that holds inputs in `multipart/form-data`; several parts are several inputs. */
  readonly field: string;
  /** JSON Schema of a body in `application/json`; absent: the kind takes none. For OpenAPI, the page and checks. */
  readonly schema?: Readonly<Record<string, unknown>>;
  /** Keys under which an answer shows one input's `Info`, e.g. `image`. */
  readonly shownAs: string;
  /**
   * Looks at an input, cheaply and bounded, before anything is decoded.
   *
   * @throws ServingError for an input that no model of the kind could take
   */
  inspect(bytes: Uint8Array, type: string, scope: Scope): Promise<Info>;
  /**
   * The tensors of one item, each with a batch dimension of 1. Called once for each distinct `input` of the models that
   * are asked.
   *
   * @throws ServingError for an input that cannot be prepared
   */
  prepare(bytes: Uint8Array, type: string, input: Input, scope: Scope): Promise<Tensors>;
  /** Checks what a caller prepared against the model's inputs. @throws ServingError BAD_REQUEST */
  collate(items: readonly Tensors[], inputs: readonly TensorSpec[]): Tensors;
}
