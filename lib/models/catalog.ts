import type { ServiceBroker } from "moleculer";
import type { InputSpec } from "../kinds/kind.ts";
import { perBroker } from "../per-broker.ts";
import type { BatchingBounds, ModelMetadata, ServedVersion, VersionReport } from "../types.ts";
import { type Control, type Label, newer } from "./control.ts";
import type { ModelId } from "./identity.ts";
import { metadataProblems } from "./peer.ts";
import type { VersionState } from "./version-state.ts";

/** A version as the cluster serves it. */
export interface KnownVersion extends ServedVersion {
  /** Nodes that serve it. */
  readonly replicas: readonly string[];
  /** Those of them for which it is the first: they answer it to who names no version. */
  readonly first: readonly string[];
}

/** What one node said of one version. */
export interface NodeReport extends VersionReport {
  readonly node: string;
}

/** A model service as the cluster knows it. */
export interface KnownModel {
  /** The service's name: what `models=` and the addresses take. */
  readonly name: string;
  readonly question: string;
  readonly batching: BatchingBounds;
  /** Those with the most replicas first, of as many the newest. At least one; without replicas if the model is away. */
  readonly versions: readonly [KnownVersion, ...KnownVersion[]];
  readonly reports?: readonly NodeReport[];
  /** The newest decision about it that any replica has heard of. */
  readonly control?: Control | undefined;
  /** Which decision each replica has heard of last; undefined: of none. */
  readonly heard?: ReadonlyMap<string, Control | undefined>;
}

/** One row of the model list, as clients see it. */
export type ModelDescription = Readonly<Record<string, unknown>> & {
  readonly name: string;
  readonly question: string;
  /** The version for who names none. */
  readonly model: ModelId;
  readonly input: InputSpec;
  readonly state: "ready" | "unavailable";
  /** Nodes that serve it now. */
  readonly replicas: readonly string[];
  /** All that is known of its versions, the newest first. */
  readonly versions: readonly VersionDescription[];
};

/** One version of a model, as clients see it. */
export interface VersionDescription {
  /** Absent: where the versions come from cannot be read. */
  readonly version?: number;
  readonly fingerprint?: string;
  /** The furthest that any node has got with it. */
  readonly state: VersionState;
  readonly engine?: string;
  readonly labels?: readonly Label[];
  /** Of the requests that name no version, those that the canary gets. */
  readonly share?: number;
  /** It has just taken over, and the version before it is kept. */
  readonly trial?: true;
  /** Its state by node. */
  readonly nodes: Readonly<Record<string, VersionState>>;
  /** Why it does not serve, of a node where it failed. */
  readonly error?: string;
}

interface ListedService {
  readonly name: string;
  readonly nodeID: string;
  readonly available: boolean;
  readonly metadata?: Partial<ModelMetadata>;
}

/** Models whose last replica left are remembered this long … */
const FORGET_AFTER_MS = 24 * 3_600_000;
/** … and at most so many: those away longest are forgotten first. */
const MAX_AWAY = 1_000;

/**
 * Every model the cluster knows, by name. Models are found by their metadata in Moleculer's registry; there is no other
 * list. A model whose last replica left the registry is remembered: it is unavailable, and not unknown. So is one of
 * this process that is still loading, which Moleculer registers only once it is ready.
 */
export class Catalog {
  readonly #broker: ServiceBroker;
  readonly #now: () => number;
  readonly #away = new Map<string, { readonly model: KnownModel; readonly since: number }>();
  readonly #disbelieved = new WeakSet<object>();
  /** What the registry said last; undefined: it has changed since. */
  #present: ReadonlyMap<string, KnownModel> | undefined;

  /** @param now milliseconds, for tests */
  constructor(broker: ServiceBroker, now: () => number = () => performance.now()) {
    this.#broker = broker;
    this.#now = now;
    // Each says before it that all of a change is in the registry. Looking at once remembers who leaves next.
    for (const event of ["$services.changed", "$node.disconnected"]) {
      broker.localBus.on(event, () => this.#look());
    }
    this.#look();
  }

  /** All models, by name. */
  list(): readonly KnownModel[] {
    const present = this.#present ?? this.#look();
    const away = [...this.#away.values()].map(({ model }) => model);
    return [...present.values(), ...away, ...this.#loading()].sort((a, b) => a.name.localeCompare(b.name));
  }

  get(name: string): KnownModel | undefined {
    return (
      (this.#present ?? this.#look()).get(name) ??
      this.#away.get(name)?.model ??
      this.#loading().find((model) => model.name === name)
    );
  }

  /** Forgets a model that is away; whether there was one. */
  forget(name: string): boolean {
    return this.#away.delete(name);
  }

  /** Models of this process that have only begun to start, without replicas; none of those that are known already. */
  #loading(): readonly KnownModel[] {
    const { services, nodeID } = this.#broker;
    const unknown = services.filter(({ name }) => !this.#present?.has(name) && !this.#away.has(name));
    const own = unknown.map(({ name, metadata }) => ({ name, nodeID, available: false, metadata }));
    return [...modelsAmong(own, (service, problems) => this.#disbelieve(service, problems)).values()];
  }

  /** Says once what is wrong with what a node says of a service, which is then none. */
  #disbelieve({ name, nodeID, metadata }: ListedService, problems: readonly string[]): void {
    if (!metadata || this.#disbelieved.has(metadata)) return;
    this.#disbelieved.add(metadata);
    this.#broker.logger.warn("A node says of a model what cannot be", {
      model: name.slice(0, 100),
      nodeID,
      problems: problems.slice(0, 5),
    });
  }

  #look(): ReadonlyMap<string, KnownModel> {
    const before = this.#present;
    const present = presentModels(this.#broker, (service, problems) => this.#disbelieve(service, problems));
    const now = this.#now();
    for (const [name, model] of before ?? []) {
      if (!present.has(name)) this.#away.set(name, { model: withoutReplicas(model), since: now });
    }
    for (const name of present.keys()) this.#away.delete(name);
    for (const [name, { since }] of this.#away) {
      if (now - since > FORGET_AFTER_MS || this.#away.size > MAX_AWAY) this.#away.delete(name);
    }
    this.#present = present;
    return present;
  }
}

/** The broker's catalog: one, so that all in a process remember the same. */
export const catalogOf = perBroker((broker) => new Catalog(broker));

export function isReady({ versions: [first] }: KnownModel): boolean {
  return first.replicas.length > 0;
}

/** A model as clients see it. */
export function describeModel(model: KnownModel): ModelDescription {
  const { name, question, batching, versions } = model;
  const { id, input, task, engine } = shown(model);
  return {
    name,
    question,
    model: id,
    input,
    task: task.name,
    ...task.spec,
    batching,
    ...(engine ? { engine } : {}),
    state: isReady(model) ? "ready" : "unavailable",
    replicas: versions.flatMap(({ first }) => first).sort(),
    versions: describeVersions(model),
  };
}

/** The version for who names none: the stable one, or that with the most replicas, unless it is the canary. */
function shown({ versions, control }: KnownModel): KnownVersion {
  const serving = versions.filter(({ replicas }) => replicas.length > 0);
  return (
    serving.find(({ id }) => id.version === control?.stable) ??
    serving.find(({ id }) => id.version !== control?.canary?.version) ??
    versions[0]
  );
}

/** The labels that a version is to have, and the canary's share. */
function labelsOf(control: Control | undefined, version: number | undefined): Partial<VersionDescription> {
  if (!control || version === undefined) return {};
  const { stable, canary } = control;
  const labels: Label[] = [];
  if (stable === version) labels.push("stable");
  if (canary?.version === version) labels.push("canary");
  return {
    ...(labels.length > 0 ? { labels } : {}),
    ...(canary?.version === version ? { share: canary.share } : {}),
  };
}

function describeVersions({ versions, control, reports = [] }: KnownModel): VersionDescription[] {
  const groups = Map.groupBy(reports, ({ version, fingerprint }) => `${version} ${fingerprint}`);
  const described = [...groups.values()].map((group): VersionDescription => {
    const best = group.reduce((a, b) => (PROGRESS.indexOf(b.state) > PROGRESS.indexOf(a.state) ? b : a));
    const { version, fingerprint, state } = best;
    const served = versions.find(({ id }) => id.fingerprint === fingerprint);
    const error = group.find((each) => each.error)?.error;
    return {
      ...(version === undefined ? {} : { version }),
      ...(fingerprint === undefined ? {} : { fingerprint }),
      state,
      ...(served?.engine ? { engine: served.engine } : {}),
      ...labelsOf(control, version),
      ...(served?.trial ? { trial: true } : {}),
      nodes: Object.fromEntries(group.map((each) => [each.node, each.state])),
      ...(error ? { error } : {}),
    };
  });
  return described.sort((a, b) => (b.version ?? Number.MAX_VALUE) - (a.version ?? Number.MAX_VALUE));
}

/** From what serves least to what serves. */
const PROGRESS: readonly VersionState[] = [
  "closed",
  "failed",
  "available",
  "draining",
  "loading",
  "warming",
  "checking",
  "ready",
];

function presentModels(
  broker: ServiceBroker,
  disbelieve: (service: ListedService, problems: readonly string[]) => void,
): Map<string, KnownModel> {
  const services = broker.registry.getServiceList({ onlyAvailable: false, skipInternal: true });
  return modelsAmong(services as ListedService[], disbelieve);
}

function modelsAmong(
  services: readonly ListedService[],
  disbelieve: (service: ListedService, problems: readonly string[]) => void,
): Map<string, KnownModel> {
  const models = new Map<string, KnownModel>();
  for (const service of services) {
    const { name, nodeID, available, metadata } = service;
    if (metadata?.kind !== "model") continue;
    const problems = metadataProblems(metadata);
    // One that has only just begun to load has no version yet.
    if (problems.length > 0 && metadata.versions?.length !== 0) disbelieve(service, problems);
    if (problems.length > 0 || !isModel(metadata)) continue;
    const known = models.get(name);
    const replica = available ? [nodeID] : [];
    const reports = available ? (metadata.reports ?? []).map((report) => ({ ...report, node: nodeID })) : [];
    models.set(name, {
      name,
      question: metadata.question,
      batching: metadata.batching,
      versions: withReplica(known?.versions ?? [], metadata.versions, replica),
      reports: [...(known?.reports ?? []), ...reports],
      control: newer(known?.control, metadata.control),
      heard: new Map([...(known?.heard ?? []), ...replica.map((node) => [node, metadata.control] as const)]),
    });
  }
  return models;
}

/** `versions` with those that one more replica serves, the first of them for who names none. */
function withReplica(
  versions: readonly KnownVersion[],
  served: readonly [ServedVersion, ...ServedVersion[]],
  replica: readonly string[],
): KnownModel["versions"] {
  const merged = new Map(versions.map((version) => [version.id.fingerprint, version]));
  for (const version of served) {
    const same = merged.get(version.id.fingerprint);
    const here = version.down ? [] : replica;
    merged.set(version.id.fingerprint, {
      ...version,
      // While one replica has reason to doubt it, it is on trial.
      ...(same?.trial ? { trial: true } : {}),
      replicas: [...(same?.replicas ?? []), ...here],
      first: [...(same?.first ?? []), ...(version === served[0] ? here : [])],
    });
  }
  const [first, ...rest] = [...merged.values()].sort(
    (a, b) => b.replicas.length - a.replicas.length || b.id.version - a.id.version,
  );
  return [first as KnownVersion, ...rest];
}

function withoutReplicas({ versions: [first], ...model }: KnownModel): KnownModel {
  return { ...model, versions: [{ ...first, replicas: [], first: [] }], reports: [], heard: new Map() };
}

function isModel(
  metadata: Partial<ModelMetadata> | undefined,
): metadata is ModelMetadata & { readonly versions: readonly [ServedVersion, ...ServedVersion[]] } {
  return metadata?.kind === "model" && (metadata.versions?.length ?? 0) > 0;
}
