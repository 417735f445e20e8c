import { resolve } from "node:path";
import type { ActionParams, Context, Logger, Service, ServiceBroker } from "moleculer";
import { type Env, env } from "../env.ts";
import { perBroker } from "../per-broker.ts";
import type { Scope } from "../request/scope.ts";
import { count, gauge } from "../telemetry/metrics.ts";
import type { ModelMetadata, PredictParams, PredictResult, VersionReport } from "../types.ts";
import { type Change, type Control, changed, newer, wishesOf } from "./control.ts";
import { type ModelId, routeOf } from "./identity.ts";
import { listVersions } from "./manifest.ts";
import { Model, startingModel } from "./model.ts";
import { type OriginOptions, OriginRepository } from "./origin.ts";
import type { VersionPolicy } from "./policy.ts";
import { Poll } from "./poll.ts";
import type { ProbationOptions } from "./probation.ts";
import { FolderRepository } from "./repository.ts";
import { ServedModel, type ServingSettings } from "./served.ts";
import { type VersionEvent, Versions } from "./versions.ts";

export interface ModelServiceSettings extends ServingSettings {
  readonly model: string;
  readonly modelsDir: string;
  readonly question: string;
  readonly versionPolicy: VersionPolicy;
  readonly pollMs: number;
  readonly swap: ProbationOptions & { readonly keepWarmMs: number };
}

export interface ModelServiceOptions {
  readonly broker: ServiceBroker;
  readonly logger: Logger;
  /** The service's name. */
  readonly name: string;
  readonly settings: ModelServiceSettings;
  /** What the service asks of its model, as the model's task wants it. */
  readonly ask: unknown;
  /** The service's metadata: what others know of it. */
  readonly metadata: Record<string, unknown>;
  /** The action of each version's own route. */
  readonly action: {
    readonly params: ActionParams;
    readonly handler: (ctx: Context<PredictParams>) => unknown;
  };
}

/** What a model's service does: serves versions of it, each at a route of its own, and tells others which. */
export class ModelService {
  readonly #options: ModelServiceOptions;
  readonly #versions: Versions<ServedModel>;
  readonly #routes = new Map<string, Service>();
  readonly #stopPolling: () => void;
  #control: Control | undefined;
  #started = false;

  /** @throws StartError if there is nothing that could be served */
  constructor(options: ModelServiceOptions) {
    const { broker, name, settings, ask, metadata } = options;
    const { model, modelsDir, runtime, versionPolicy, swap, pollMs } = settings;
    this.#options = options;
    const dir = resolve(modelsDir, model);
    const folder = new FolderRepository(dir, runtime);
    const origin = originOptions(env);
    // With an origin the first version may still have to be fetched.
    const mayFetch = origin !== undefined && listVersions(dir).length === 0;
    const start = mayFetch
      ? []
      : [startingModel(settings, (found) => found.served(ask, this.#actionOf(found.id)))];
    Object.assign(metadata, this.#metadata(start.map((found) => new ServedModel(broker, name, found))));
    this.#versions = new Versions<ServedModel>({
      name,
      repository: origin ? new OriginRepository(folder, modelsDir, model, origin) : folder,
      policy: versionPolicy,
      probation: swap,
      keepWarmMs: swap.keepWarmMs,
      load: (dir, beside, onState) => this.#load(dir, beside, onState),
      isProven: ({ fingerprint }) => provenOf(broker).has(fingerprint),
      mount: (id) => this.#mount(id),
      unmount: (id) => this.#unmount(id),
      onChange: () => this.#publish(),
      onEvent: (event) => this.#tell(event),
    });
    this.#stopPolling = polled(broker, dir, pollMs, () => this.#versions.reconcile());
  }

  /** Resolves when a version can be asked. @throws why none can */
  async start(): Promise<void> {
    await this.#versions.start();
    this.#started = true;
    servicesOf(this.#options.broker).set(this.#options.name, this);
    this.#publish();
  }

  /**
   * Does as was decided, unless it knows of something newer.
   *
   * @returns what is in force now
   */
  apply(control: Control): Control {
    const { logger, name: model } = this.#options;
    const before = this.#control;
    const now = newer<Control | undefined>(before, control) ?? control;
    if (now.id === before?.id) return now;
    this.#control = now;
    this.#versions.wishes = wishesOf(now);
    if (JSON.stringify(now.tuning) !== JSON.stringify(before?.tuning ?? {})) this.#versions.renew();
    const { by, what, revision } = now;
    logger.info("Model is controlled", { model, by, what, revision });
    this.#publish();
    // What comes of it is told by its versions.
    this.#versions.reconcile({ force: true }).catch(() => {});
    return now;
  }

  /** Looks for new versions now, and says what there is then. @throws if the repository cannot be read */
  async refresh(): Promise<readonly VersionReport[]> {
    await this.#versions.reconcile({ force: true });
    return this.#versions.reports;
  }

  /** @throws MODEL_UNAVAILABLE if it was prepared for a version that is not served here; see {@link ServedModel.predict} */
  predict(params: PredictParams, scope: Scope, suspect: boolean): Promise<PredictResult> {
    return this.#versions.ask(params.model?.fingerprint, params.count, (version) =>
      version.predict(params, scope, suspect),
    );
  }

  /** Finishes what it has. */
  async stop(): Promise<void> {
    const { broker, name } = this.#options;
    servicesOf(broker).delete(name);
    this.#stopPolling();
    // With the whole broker the routes stop by themselves.
    if (!broker.stopping)
      await Promise.all([...this.#routes.values()].map((route) => broker.destroyService(route)));
    await this.#versions.close();
  }

  async #load(
    dir: string,
    beside: boolean,
    onState: (state: "warming" | "checking") => void,
  ): Promise<ServedModel> {
    const { broker, name, ask } = this.#options;
    const settings = this.#settings();
    const served = new ServedModel(broker, name, new Model(dir, settings.runtime));
    // It may not have what the service asks for: then it must not take over.
    served.served(ask, this.#actionOf(served.id));
    await served.load(settings, beside, onState);
    served.watch(() => this.#publish());
    return served;
  }

  /** Those of the service, with what people have changed since. */
  #settings(): ModelServiceSettings {
    const { settings } = this.#options;
    const { concurrency, ...bounds } = this.#control?.tuning ?? {};
    const given = Object.entries(bounds).filter(([, value]) => value !== undefined);
    const batching = { ...settings.batching, ...Object.fromEntries(given) };
    return {
      ...settings,
      instances: concurrency ?? settings.instances,
      // A queue that holds no batch would never have a full one.
      batching: { ...batching, maxQueueSize: Math.max(batching.maxQueueSize, batching.maxBatchSize) },
    };
  }

  #actionOf(id: ModelId): string {
    return `${routeOf(id)}.${this.#options.name}.predict`;
  }

  async #mount(id: ModelId): Promise<void> {
    const { broker, name, action } = this.#options;
    const version = routeOf(id);
    if (this.#routes.has(version)) return;
    const handler = (ctx: Context<PredictParams>) => action.handler(ctx);
    const route = broker.createService({ name, version, actions: { predict: { ...action, handler } } });
    this.#routes.set(version, route);
  }

  async #unmount(id: ModelId): Promise<void> {
    const version = routeOf(id);
    const route = this.#routes.get(version);
    this.#routes.delete(version);
    if (route) await this.#options.broker.destroyService(route);
  }

  /** The one reference that callers go by: a new list of versions. */
  #publish(): void {
    const { broker, metadata } = this.#options;
    // Before that nobody knows of it.
    if (!this.#started || broker.stopping) return;
    const ready = this.#versions.ready;
    const served = ready.map(({ loaded }) => loaded);
    const trials = new Set(ready.flatMap(({ loaded, trial }) => (trial ? loaded.id.fingerprint : [])));
    Object.assign(metadata, this.#metadata(served, trials), {
      reports: this.#versions.reports,
      // A copy: what stands twice in a packet arrives once.
      ...(this.#control ? { control: structuredClone(this.#control) } : {}),
    });
    const [first] = served;
    if (first) this.#gauge(first.id);
    // Moleculer makes what it tells others anew, with a higher number, only when told to.
    (broker.registry as { localNodeInfoInvalidated?: unknown }).localNodeInfoInvalidated = "seq";
    broker.servicesChanged(true);
  }

  #metadata(
    served: readonly ServedModel[],
    trials: ReadonlySet<string> = new Set(),
  ): Pick<ModelMetadata, "kind" | "question" | "versions" | "batching"> {
    const { ask } = this.#options;
    const { question, batching, instances, threads } = this.#settings();
    const versions = served.map((version) => ({
      ...version.served(ask, this.#actionOf(version.id)),
      ...(trials.has(version.id.fingerprint) ? { trial: true as const } : {}),
    }));
    return {
      kind: "model",
      question,
      versions,
      // Not the settings' own object: what stands twice in a packet arrives once.
      batching: {
        maxBatchSize: Math.min(batching.maxBatchSize, served[0]?.maxBatch ?? batching.maxBatchSize),
        maxQueueSize: batching.maxQueueSize,
        maxQueueDelayMs: batching.maxQueueDelayMs,
        concurrency: served[0]?.concurrency({ threads, instances }) ?? Math.min(instances, threads),
      },
    };
  }

  /** Of several questions to one network one may be asked alone: what it proves holds for all. */
  #prove(id: ModelId): void {
    provenOf(this.#options.broker).add(id.fingerprint);
    for (const service of this.#siblings(id)) if (service !== this) service.#versions.prove(id.fingerprint);
  }

  /** The services of this process that ask the same model, this one included. */
  #siblings({ name }: ModelId): ModelService[] {
    const { broker } = this.#options;
    return [...servicesOf(broker).values()].filter((service) => service.#options.settings.model === name);
  }

  #decide(change: Change): void {
    this.apply(changed(this.#control, change, `node ${this.#options.broker.nodeID}`));
  }

  #gauge({ name, version }: ModelId): void {
    const { broker, name: model } = this.#options;
    gauge(broker, "inference.model.version", version, { model, name });
  }

  #tell(event: VersionEvent): void {
    const { broker, logger, name: model } = this.#options;
    count(broker, "model.versions.total", { model, event: event.event });
    if (event.event === "proven") this.#prove(event.id);
    // The others take it back, too: a version that is bad here is bad there.
    if (event.event === "taken back") {
      const { version, id, reason } = event;
      const change = { op: "refuse", version, fingerprint: id.fingerprint, reason } as const;
      for (const service of this.#siblings(id)) service.#decide(change);
    }
    if (event.event === "unreadable") {
      logger.warn("The versions of the model cannot be listed", { model, reason: event.reason });
    } else if ("reason" in event) {
      const { version, reason } = event;
      const what = event.event === "failed" ? "Version cannot serve" : "Version is taken back";
      logger.error(what, { model, version, reason });
    } else {
      const { name, version, fingerprint } = event.id;
      logger.info(`Version is ${event.event}`, { model, name, version, fingerprint });
    }
  }
}

/** The models' services of this process that have started, by name. */
export const servicesOf = perBroker(() => new Map<string, ModelService>());

/** Undefined: there is no origin. */
function originOptions(env: Env): OriginOptions | undefined {
  if (env.MODELS_ORIGIN.length === 0) return undefined;
  return {
    origins: env.MODELS_ORIGIN,
    headers: Object.fromEntries(env.MODELS_ORIGIN_HEADERS),
    maxBytes: env.MODELS_MAX_BYTES,
    allowPrivateRedirects: env.MODELS_ORIGIN_PRIVATE_REDIRECTS,
  };
}

/** Fingerprints of the versions that have proved themselves in this process. */
const provenOf = perBroker(() => new Set<string>());

interface Polled {
  readonly looks: Set<() => Promise<unknown>>;
  readonly poll: Poll;
}

const pollsOf = perBroker(() => new Map<string, Polled>());

/**
 * Looks so often, together with the other services of the process that ask the same model: they change versions at the
 * same time, and so share the new one's engines as they share the old one's.
 *
 * @returns ends it
 */
function polled(
  broker: ServiceBroker,
  dir: string,
  everyMs: number,
  look: () => Promise<unknown>,
): () => void {
  const own = pollsOf(broker);
  const key = `${everyMs} ${dir}`;
  let shared = own.get(key);
  if (!shared) {
    const looks = new Set<() => Promise<unknown>>();
    shared = {
      looks,
      poll: new Poll(() => Promise.allSettled([...looks].map((each) => each())), { everyMs }),
    };
    shared.poll.start();
    own.set(key, shared);
  }
  const { looks, poll } = shared;
  looks.add(look);
  return () => {
    looks.delete(look);
    if (looks.size > 0) return;
    poll.stop();
    own.delete(key);
  };
}
