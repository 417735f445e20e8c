import { hash } from "node:crypto";
import type { Tensors } from "../engines/tensors.ts";
import {
  ERRORS,
  type ErrorCode,
  errorCode,
  ModelNotFoundError,
  ModelUnavailableError,
  QueueFullError,
  ServingError,
  toWire,
} from "../errors.ts";
import type { Input, InputSpec, Inspection, Preparer } from "../kinds/kind.ts";
import { type Catalog, isReady, type KnownVersion } from "../models/catalog.ts";
import type { ModelId } from "../models/identity.ts";
import { type Choice, Labels } from "../models/labels.ts";
import { isOwnFault } from "../models/probation.ts";
import type { Retry } from "../request/retry.ts";
import { type Scope, whyOver, within } from "../request/scope.ts";
import { Tally } from "../request/tally.ts";
import { taskOf } from "../tasks/registry.ts";
import type {
  AskParams,
  AskResult,
  ItemAnswer,
  ModelAnswer,
  PredictedItem,
  PredictParams,
  PredictResult,
  Provenance,
} from "../types.ts";
import type { Found, OutputCache } from "./output-cache.ts";

export interface DispatcherOptions {
  /** This node, which answers from the cache. */
  readonly nodeID: string;
  /** The half of a kind that prepares; the same for each call with one name. */
  readonly preparer: (kind: string) => Promise<Preparer>;
  /** The models there are now. */
  readonly models: Pick<Catalog, "list" | "get">;
  readonly retry: Retry;
  /** Told of each repetition of a call. */
  readonly onRetry?: (model: string) => void;
  /**
   * Questions that may be open to one model at once, from 1. More are refused before their input is prepared: a flood
   * on one model must not keep the decoder from the others.
   */
  readonly maxInFlight: number;
  /** Absent: everything is computed. */
  readonly cache?: OutputCache<Computed>;
  /** Told of every input that was prepared: seconds, without the wait for its turn. */
  readonly onDecode?: (seconds: number) => void;
  /** Told of every question that its model never heard of: it is away, or has too much to do. */
  readonly onRefusal?: (model: string, code: ErrorCode) => void;
  /** Told of what the client reads as INTERNAL. */
  readonly onFault?: (error: unknown, about: { readonly requestId: string; readonly model?: string }) => void;
}

/** Calls a model service's action; throws what it failed with. */
export type Predict = (action: string, params: PredictParams, scope: Scope) => Promise<PredictResult>;

/** What is known of an output that was computed for this request. */
export type Computed = Omit<Provenance, "cached">;

/** One asked model, and the version of it that answers. */
interface Questioner {
  readonly name: string;
  readonly version: KnownVersion;
}

/** Asked models whose version is the same network; at least one. */
type Network = readonly [Questioner, ...Questioner[]];

/** One input of one request on its way through. */
interface Item {
  readonly kind: string;
  readonly input: Input;
  readonly info: Inspection;
  readonly noStore: boolean;
  readonly choice: Choice;
  readonly predict: Predict;
  readonly prepare: (wanted: InputSpec, scope: Scope) => Promise<Tensors>;
}

/** No asked model serves the version any more; others may be served instead. */
class VersionGoneError extends Error {}

/** What `prepare` threw because of the input: the same for every model. */
class UnreadableInput extends Error {}

/** Times that the models of a request are looked up anew because their version changed under it, or failed. */
const MAX_PLANS = 3;

/** One look at the models of a request. */
interface Plan {
  /** Looks that are left, this one included. */
  readonly left: number;
  /** Fingerprints of versions on trial that failed on this input: another version has it. */
  readonly avoid: readonly string[];
}

/**
 * Asks models about inputs: looks at each input once, prepares it once for each distinct specification, asks each
 * network once however many questions are put to it, and returns what they said. A model or an input that fails takes
 * only its own place in the answer. What a network said is kept; answers are made from it anew.
 */
export class Dispatcher {
  readonly #options: DispatcherOptions;
  /** Calls under way by model. */
  readonly #inFlight = new Tally();
  readonly #labels = new Labels();

  constructor(options: DispatcherOptions) {
    this.#options = options;
  }

  /** @throws MODEL_NOT_FOUND if a model is asked for by a name nobody knows, BAD_REQUEST if it takes another kind */
  async ask(
    { kind, inputs, models, noStore = false, version, key }: AskParams,
    scope: Scope,
    predict: Predict,
  ): Promise<AskResult> {
    const names = this.#select(kind, models);
    const preparer = await this.#options.preparer(kind);
    const items = inputs.map((input) =>
      this.#item(preparer, { kind, input, noStore, predict, wanted: version, key }, names, scope),
    );
    return { items: await Promise.all(items) };
  }

  #select(kind: string, names: readonly string[] | undefined): readonly string[] {
    const { models } = this.#options;
    if (!names) {
      const all = models.list().filter(({ versions: [first] }) => first.input.type === kind);
      if (all.length === 0) throw new ServingError("MODEL_UNAVAILABLE", `No model that takes ${kind} is up`);
      return all.map(({ name }) => name);
    }
    for (const name of names) {
      const model = models.get(name);
      if (!model) throw new ModelNotFoundError(name);
      const { type } = model.versions[0].input;
      if (type !== kind) throw new ServingError("BAD_REQUEST", `${name} takes ${type}, not ${kind}`);
    }
    return names;
  }

  async #item(
    preparer: Preparer,
    {
      wanted,
      key,
      ...asked
    }: Omit<Item, "info" | "prepare" | "choice"> & {
      readonly wanted: string | undefined;
      readonly key: string | undefined;
    },
    names: readonly string[],
    scope: Scope,
  ): Promise<ItemAnswer> {
    try {
      const { input } = asked;
      const info = await preparer.inspect(input, scope);
      let decodeMs = 0;
      const prepared = new Map<string, Promise<Tensors>>();
      const prepare = (wanted: InputSpec, scope: Scope) => {
        const key = JSON.stringify(wanted);
        const known = prepared.get(key);
        if (known) return known;
        let began = scope.clock.now();
        const onStart = () => {
          began = scope.clock.now();
        };
        const fresh = preparer.prepare(input, wanted, scope, onStart).then(
          (tensors) => {
            const took = scope.clock.now() - began;
            decodeMs += took;
            this.#options.onDecode?.(took / 1e3);
            return tensors;
          },
          (error: unknown) => {
            throw isInputsFault(error) ? new UnreadableInput("unreadable", { cause: error }) : error;
          },
        );
        prepared.set(key, fresh);
        return fresh;
      };
      const choice = { wanted, key: key === undefined ? info.sha256 : hash("sha256", key) };
      const results = await this.#ask({ ...asked, info, prepare, choice }, names, scope);
      // In the order in which they were asked for.
      const answers = names.flatMap((name) => {
        const answer = results.get(name);
        return answer ? [[name, answer] as const] : [];
      });
      return { info, results: Object.fromEntries(answers), timing: { decodeMs } };
    } catch (error) {
      return { error: this.#wire(error instanceof UnreadableInput ? error.cause : error, scope) };
    }
  }

  /** Every model's answer. A version that changes while it is asked, or fails on trial, is looked up anew. */
  async #ask(
    item: Item,
    names: readonly string[],
    scope: Scope,
    plan: Plan = { left: MAX_PLANS, avoid: [] },
  ): Promise<ReadonlyMap<string, ModelAnswer>> {
    const { ready, answers } = this.#plan(item, names, scope, plan);
    const asked = ready.map(async (network) => {
      try {
        const found = await this.#output(item, network, scope);
        for (const { name, version } of network) answers.set(name, this.#answer(item, version, found));
      } catch (error) {
        if (error instanceof UnreadableInput) throw error;
        const next = this.#next(error, network, item.choice, plan);
        const again =
          next &&
          (await this.#ask(
            item,
            network.map(({ name }) => name),
            scope,
            next,
          ));
        for (const { name } of network) {
          answers.set(name, again?.get(name) ?? this.#failure(error, scope, name));
        }
      }
    });
    await Promise.all(asked);
    return answers;
  }

  /** Whether it is worth looking at the models anew after this error, and how; undefined: it is not. */
  #next(error: unknown, network: Network, { wanted }: Choice, { left, avoid }: Plan): Plan | undefined {
    if (left <= 1) return undefined;
    if (error instanceof VersionGoneError) return { left: left - 1, avoid };
    const { id, trial } = network[0].version;
    // Who named a version is told how it fails.
    if (!trial || wanted !== undefined || !isOwnFault(errorCode(error))) return undefined;
    const next = { left: left - 1, avoid: [...avoid, id.fingerprint] };
    return network.every(({ name }) => this.#versions(name, next).length > 0) ? next : undefined;
  }

  /** Of a model that is up those that may be asked. */
  #versions(name: string, { avoid }: Plan): readonly KnownVersion[] {
    const model = this.#options.models.get(name);
    if (!model || !isReady(model)) return [];
    return model.versions.filter(
      ({ id, replicas }) => replicas.length > 0 && !avoid.includes(id.fingerprint),
    );
  }

  /** The networks behind these models, each once, and the answers for models that cannot be asked. */
  #plan(
    { kind, choice }: Item,
    names: readonly string[],
    scope: Scope,
    plan: Plan,
  ): { ready: readonly Network[]; answers: Map<string, ModelAnswer> } {
    const networks = new Map<string, [Questioner, ...Questioner[]]>();
    const answers = new Map<string, ModelAnswer>();
    for (const name of names) {
      try {
        const version = this.#choose(name, choice, plan);
        if (version?.input.type !== kind) {
          answers.set(name, this.#unavailable(name));
          continue;
        }
        const same = networks.get(version.id.fingerprint);
        if (same) same.push({ name, version });
        else networks.set(version.id.fingerprint, [{ name, version }]);
      } catch (error) {
        answers.set(name, this.#failure(error, scope, name));
      }
    }
    return { ready: [...networks.values()], answers };
  }

  /** @throws VERSION_NOT_FOUND if it is not there while the model is */
  #choose(name: string, choice: Choice, plan: Plan): KnownVersion | undefined {
    const model = this.#options.models.get(name);
    const versions = this.#versions(name, plan);
    return model && versions.length > 0 ? this.#labels.choose(model, versions, choice) : undefined;
  }

  #answer({ info }: Item, { id, task }: KnownVersion, { output, report }: Found<Computed>): ModelAnswer {
    const answer = taskOf(task.name).answer(output, task.question, task.spec, info);
    return { ...answer, ...(report ?? this.#kept(id)) };
  }

  #kept({ name, version }: ModelId): Provenance {
    return {
      model: { name, version },
      node: this.#options.nodeID,
      batchSize: 0,
      timing: { queueMs: 0, computeMs: 0 },
      cached: true,
    };
  }

  #output(item: Item, network: Network, scope: Scope): Promise<Found<Computed>> {
    const { cache } = this.#options;
    const compute = (own: Scope) => this.#compute(item, network, own);
    const kept = taskOf(network[0].version.task.name).kept ?? true;
    if (!cache || item.noStore || !kept) {
      cache?.bypass();
      return within(scope, "compute", () => compute(scope));
    }
    const { id, input } = network[0].version;
    return cache.through(
      [item.kind, item.info.sha256, id.fingerprint, JSON.stringify(input)].join(":"),
      scope,
      compute,
    );
  }

  /** One call for all questions to the network, to whichever of their services has least to do. */
  #compute(item: Item, network: Network, scope: Scope): Promise<Found<Computed>> {
    const { retry, onRetry } = this.#options;
    const [{ name: first, version }] = network;
    let called = first;
    const attempt = async () => {
      const { name, action } = this.#leastBusy(network);
      called = name;
      return this.#bounded(name, async () => {
        const tensors = await item.prepare(version.input, scope);
        const over = whyOver(scope, "decode");
        if (over) throw over;
        const noStore = item.noStore ? { noStore: true } : {};
        const params = { model: version.id, count: 1, tensors, ...noStore };
        return computed(await item.predict(action, params, scope), version.id);
      });
    };
    return retry.run(scope, attempt, () => onRetry?.(called));
  }

  /**
   * By what the registry says now, which may have changed since the models were looked up.
   *
   * @throws VersionGoneError if none of them serves the version any more
   */
  #leastBusy(network: Network): { readonly name: string; readonly action: string } {
    const { fingerprint } = network[0].version.id;
    const serving = network.flatMap(({ name }) => {
      const version = this.#options.models
        .get(name)
        ?.versions.find(({ id, replicas }) => id.fingerprint === fingerprint && replicas.length > 0);
      return version ? [{ name, action: version.action, open: this.#inFlight.count(name) }] : [];
    });
    const [least] = serving.sort((a, b) => a.open - b.open);
    if (least) return least;
    throw new VersionGoneError();
  }

  async #bounded<T>(model: string, work: () => Promise<T>): Promise<T> {
    const { maxInFlight } = this.#options;
    if (this.#inFlight.count(model) >= maxInFlight) {
      this.#options.onRefusal?.(model, "QUEUE_FULL");
      throw new QueueFullError(model, maxInFlight);
    }
    this.#inFlight.add(model);
    try {
      return await work();
    } finally {
      this.#inFlight.remove(model);
    }
  }

  #failure(error: unknown, scope: Scope, model: string): ModelAnswer {
    if (error instanceof VersionGoneError) return this.#unavailable(model);
    return { error: this.#wire(error, scope, model) };
  }

  #unavailable(model: string): ModelAnswer {
    this.#options.onRefusal?.(model, "MODEL_UNAVAILABLE");
    return { error: toWire(new ModelUnavailableError(model)) };
  }

  #wire(error: unknown, { requestId }: Scope, model?: string) {
    if (errorCode(error) === "INTERNAL") {
      this.#options.onFault?.(error, { requestId, ...(model ? { model } : {}) });
    }
    return toWire(error);
  }
}

/** @throws the item's error, as a `ServingError` */
function computed({ model, node, items }: PredictResult, asked: ModelId): Found<Computed> {
  const [item] = items;
  if (!item) throw new ServingError("INTERNAL", "The model answered without an item");
  if (!item.ok) throw new ServingError(item.error.code, item.error.message);
  if (model.fingerprint !== asked.fingerprint) {
    throw new ServingError("MODEL_UNAVAILABLE", `${model.name} answered as another version`);
  }
  const { output, batchSize, dispatchReason, timing }: PredictedItem = item;
  return {
    output,
    report: {
      model: { name: model.name, version: model.version },
      node,
      batchSize,
      ...(dispatchReason ? { dispatchReason } : {}),
      timing,
    },
  };
}

/** What a preparer refuses as the client's mistake is the input's fault, whichever model it was prepared for. */
function isInputsFault(error: unknown): boolean {
  const { status } = ERRORS[errorCode(error)];
  return status >= 400 && status <= 422 && errorCode(error) !== "SLOW_REQUEST";
}
