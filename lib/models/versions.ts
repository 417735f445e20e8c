import { errorCode, ModelUnavailableError, wholeReason, withoutFolders } from "../errors.ts";
import { type Clock, systemClock } from "../request/clock.ts";
import type { StateMachine } from "../state-machine.ts";
import type { PredictResult, VersionReport } from "../types.ts";
import type { ModelId } from "./identity.ts";
import { selected, type VersionPolicy, type Wishes } from "./policy.ts";
import { Probation, type ProbationOptions } from "./probation.ts";
import type { Found, Listing, Problem, Repository } from "./repository.ts";
import { type VersionState, versionState } from "./version-state.ts";

/** A version that is loaded and can be asked. */
export interface Loaded {
  readonly id: ModelId;
  /** Finishes what it has; memory is given back. */
  close(): Promise<void>;
}

export type VersionEvent =
  | { readonly event: "ready" | "proven" | "closed"; readonly id: ModelId }
  | { readonly event: "failed"; readonly version: number; readonly reason: string }
  | { readonly event: "taken back"; readonly version: number; readonly id: ModelId; readonly reason: string }
  /** The repository, or an origin of it, cannot be read. */
  | { readonly event: "unreadable"; readonly reason: string };

export interface VersionsOptions<V extends Loaded> {
  /** The service's name. */
  readonly name: string;
  readonly repository: Repository;
  readonly policy: VersionPolicy;
  readonly probation: ProbationOptions;
  /** A version that is replaced is let go when its successor is proven, or nobody has asked for it so long, ms. */
  readonly keepWarmMs: number;
  /**
   * Loads the version in `dir` and proves it.
   *
   * @param beside others serve: it must take little from them
   * @param onState told when it gets further
   * @throws why it cannot serve
   */
  readonly load: (
    dir: string,
    beside: boolean,
    onState: (state: "warming" | "checking") => void,
  ) => Promise<V>;
  /** Whether it has proved itself already, under another service. @default it has not */
  readonly isProven?: (id: ModelId) => boolean;
  /** Makes its address, before others are told of it. */
  readonly mount: (id: ModelId) => Promise<void>;
  /** Takes its address away. */
  readonly unmount: (id: ModelId) => Promise<void>;
  /** What is served, or what is known of a version, has changed. */
  readonly onChange: () => void;
  readonly onEvent: (event: VersionEvent) => void;
  /** @default systemClock */
  readonly clock?: Clock;
}

interface Version<V extends Loaded> {
  readonly number: number;
  readonly state: StateMachine<VersionState>;
  /** Undefined: the repository has it no more. */
  found: Found | undefined;
  fingerprint: string | undefined;
  loaded: V | undefined;
  /** Its folder, and the settings it was loaded with, while it is loaded. */
  dir: string;
  settings: number;
  probation: Probation | undefined;
  error: Error | undefined;
  failures: number;
  askedAt: number;
}

const NO_WISHES: Wishes = { load: [], unload: [], refused: [] };
/** A version that failed is tried again at so many polls, in case it was the disk or want of memory; then on demand. */
const MAX_TRIES = 3;
/** After so long everyone has heard that a version is not served here any more. */
const HEARD_MS = 3_000;
/** Its address refuses for so long after that: a request in a queue that nobody reads would wait for its deadline. */
const LINGER_MS = 60_000;
/** A service that stops waits so long for a load. */
const LAST_LOAD_MS = 5_000;
/** Versions that a service tells about, the newest. */
const MAX_REPORTED = 24;
const MAX_REASON = 300;

/**
 * The versions of one model in one service: which are there, which are served, and how one takes over from another.
 *
 * A new version is loaded and proved while the old one serves; it takes over when it is `ready`, which changes one list
 * that callers go by. The old one stays until the new one has answered its first items; if too many of them fail, the new
 * one is taken back. A version that cannot be loaded changes nothing.
 */
export class Versions<V extends Loaded> {
  readonly #options: VersionsOptions<V>;
  readonly #clock: Clock;
  readonly #versions = new Set<Version<V>>();
  readonly #giveUp = new AbortController();
  readonly #lingering = new Map<string, unknown>();
  readonly #draining = new Set<Promise<void>>();
  #wishes = NO_WISHES;
  #problems: readonly Problem[] = [];
  #last: Promise<unknown> = Promise.resolve();
  #queued: Promise<void> | undefined;
  #force = false;
  /** Counts the settings that versions are loaded with. */
  #settings = 0;
  #idleCheck: unknown;

  constructor(options: VersionsOptions<V>) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  /**
   * Brings what is served in line with what is there, the policy and the wishes: the one way for polls, for "now" and
   * for the start. Passes do not overlap; a call during one is answered by the next.
   *
   * @param force tries what failed again
   * @throws what the repository throws; what is served goes on
   */
  reconcile({ force = false }: { readonly force?: boolean } = {}): Promise<void> {
    this.#force ||= force;
    this.#queued ??= this.#last.then(() => {
      this.#queued = undefined;
      return this.#pass();
    });
    const pass = this.#queued;
    this.#last = pass.catch(() => {});
    return pass;
  }

  /** @throws why the newest version cannot be served, if none can */
  async start(): Promise<void> {
    const local = await this.#options.repository.local?.();
    if (local) await this.#settle(local);
    // What is here serves, whatever becomes of the rest.
    const all = this.reconcile();
    if (this.first) return void all.catch(() => {});
    await all;
    if (this.first) return;
    const failed = [...this.#versions].sort(newestFirst).find(({ error }) => error);
    throw failed?.error ?? new Error(this.#problems[0]?.reason ?? `No version of ${this.#options.name}`);
  }

  set wishes(wishes: Wishes) {
    this.#wishes = wishes;
  }

  /** Has what is served loaded anew at the next pass, each beside itself: with other settings. */
  renew(): void {
    this.#settings++;
  }

  /** What can be asked now: first the one for those who name none, then the newest. */
  get ready(): readonly { readonly loaded: V; readonly trial: boolean }[] {
    const first = this.first;
    return this.#inState("ready")
      .sort((a, b) => Number(b === first) - Number(a === first) || newestFirst(a, b))
      .flatMap(({ loaded, probation }) => (loaded ? [{ loaded, trial: probation?.verdict === "open" }] : []));
  }

  /** What is known of each version, the newest first. */
  get reports(): readonly VersionReport[] {
    const known = [...this.#versions].map(
      ({ number, fingerprint, state, error }): VersionReport => ({
        version: number,
        ...(fingerprint === undefined ? {} : { fingerprint }),
        state: state.state,
        ...(error && !state.is("ready") ? { error: told(error.message) } : {}),
      }),
    );
    const broken = this.#problems.map(
      ({ version, reason }): VersionReport => ({
        ...(version === undefined ? {} : { version }),
        state: "failed",
        error: told(reason),
      }),
    );
    return [...known, ...broken]
      .sort((a, b) => rank(b) - rank(a) || (b.version ?? 0) - (a.version ?? 0))
      .slice(0, MAX_REPORTED);
  }

  /**
   * Asks a version, and minds how its first answers come out.
   *
   * @param fingerprint undefined: of the first
   * @throws MODEL_UNAVAILABLE if that version is not served here
   */
  async ask(
    fingerprint: string | undefined,
    count: number,
    work: (version: V) => Promise<PredictResult>,
  ): Promise<PredictResult> {
    const version =
      fingerprint === undefined
        ? this.first
        : this.#inState("ready", "draining").find((each) => each.fingerprint === fingerprint);
    if (!version?.loaded) throw new ModelUnavailableError(this.#options.name);
    version.askedAt = this.#clock.now();
    try {
      const result = await work(version.loaded);
      for (const item of result.items) version.probation?.saw(item.ok ? undefined : item.error.code);
      return result;
    } catch (error) {
      for (let i = 0; i < count; i++) version.probation?.saw(errorCode(error));
      throw error;
    } finally {
      this.#judge(version);
    }
  }

  /** It has proved itself under another service: what it replaces here may go. */
  prove(fingerprint: string): void {
    for (const version of this.#inState("ready")) {
      if (version.fingerprint === fingerprint) version.probation = undefined;
    }
    this.#retire();
  }

  /** Ends everything that is served, in whatever state. */
  async close(): Promise<void> {
    this.#giveUp.abort(new Error("the service stops"));
    this.#clock.clearTimeout(this.#idleCheck);
    for (const timer of this.#lingering.values()) this.#clock.clearTimeout(timer);
    // A load that goes on for longer is given up when it ends.
    await Promise.race([this.#last, new Promise<void>((late) => this.#clock.setTimeout(late, LAST_LOAD_MS))]);
    await Promise.all([...this.#versions].map(({ loaded }) => loaded?.close()));
    await Promise.allSettled(this.#draining);
  }

  /** Who names no version gets it: the stable one, else the newest that is wanted and no canary. */
  get first(): Version<V> | undefined {
    const ready = this.#inState("ready").sort(newestFirst);
    const wanted = this.#wanted();
    const { stable, canary } = this.#wishes;
    return (
      ready.find(({ number }) => number === stable) ??
      ready.find((each) => wanted.includes(each) && each.number !== canary) ??
      ready.find(({ number }) => number !== canary) ??
      ready[0]
    );
  }

  async #pass(): Promise<void> {
    const force = this.#force;
    this.#force = false;
    await this.#settle(await this.#list(), force);
  }

  async #settle(listing: Listing, force = false): Promise<void> {
    this.#merge(listing);
    const tried = new Set<Version<V>>();
    const mayTry = (each: Version<V>) =>
      !tried.has(each) && (force || each.failures < MAX_TRIES || !each.state.is("failed"));
    while (!this.#giveUp.signal.aborted) {
      const next = this.#wanted(mayTry).find(({ state }) => state.is("available", "failed"));
      if (!next) break;
      tried.add(next);
      await this.#bring(next);
    }
    for (const version of this.#inState("ready")) await this.#renewed(version);
    this.#retire();
  }

  async #list(): Promise<Listing> {
    try {
      return await this.#options.repository.list(this.#giveUp.signal);
    } catch (error) {
      const reason = (error as Error).message;
      this.#problems = [{ reason }];
      this.#options.onEvent({ event: "unreadable", reason });
      this.#options.onChange();
      throw error;
    }
  }

  /** Takes over what the repository has now. */
  #merge({ found, problems }: Listing): void {
    const before = JSON.stringify(this.reports);
    for (const { version, reason } of problems) {
      const known = this.#problems.some((problem) => problem.reason === reason);
      if (version === undefined && !known) this.#options.onEvent({ event: "unreadable", reason });
    }
    this.#problems = problems;
    const left = new Set(found);
    for (const version of this.#versions) {
      const same = found.find((each) => isSame(version, each));
      if (same) left.delete(same);
      // Its files were written again: what failed may come out differently.
      if (same && same.stamp !== version.found?.stamp) version.failures = 0;
      version.found = same;
      if (!same && version.state.is("available", "failed")) this.#forget(version);
    }
    for (const each of left) this.#versions.add(newVersion(each));
    if (JSON.stringify(this.reports) !== before) this.#options.onChange();
  }

  #forget(version: Version<V>): void {
    version.state.move("closed");
    this.#versions.delete(version);
  }

  /**
   * The versions that should be served, the newest first. One that failed gives its place to the next older one.
   *
   * @param mayTry which of those that are not loaded could be
   */
  #wanted(mayTry: (version: Version<V>) => boolean = ({ state }) => !state.is("failed")): Version<V>[] {
    const { load, unload, refused, stable, canary } = this.#wishes;
    const eligible = [...this.#versions]
      .filter((each) => !each.state.is("draining", "closed"))
      .filter((each) => !refused.includes(each.fingerprint ?? ""))
      .filter((each) => each.state.is("loading", "warming", "checking", "ready") || mayTry(each));
    const there = eligible.filter(({ found }) => found);
    // What is served and not there any more serves on while there is nothing else.
    const numbers = (there.length > 0 ? there : eligible).map(({ number }) => number);
    const byPolicy = selected(
      this.#options.policy,
      numbers.filter((number) => number !== canary && !unload.includes(number)),
    );
    const labelled = [stable, canary].filter((number) => number !== undefined);
    const wanted = new Set([...byPolicy, ...load, ...labelled]);
    return [...wanted]
      .sort((a, b) => b - a)
      .flatMap((number) => {
        const same = eligible.filter((each) => each.number === number);
        // Of one number the files that are there now, rather than those that were.
        return same.find(({ found }) => found) ?? same[0] ?? [];
      });
  }

  async #bring(version: Version<V>): Promise<void> {
    const { load, mount, onEvent, onChange, isProven = () => false } = this.#options;
    const beside = this.#inState("ready").length > 0;
    const move = (state: VersionState) => {
      version.state.move(state);
      onChange();
    };
    version.error = undefined;
    move("loading");
    let loaded: V | undefined;
    try {
      const dir = await (version.found as Found).fetch(this.#giveUp.signal);
      version.settings = this.#settings;
      version.dir = dir;
      loaded = await load(dir, beside, move);
      this.#giveUp.signal.throwIfAborted();
      this.#clock.clearTimeout(this.#lingering.get(loaded.id.fingerprint));
      await mount(loaded.id);
      version.loaded = loaded;
      version.fingerprint = loaded.id.fingerprint;
      version.askedAt = this.#clock.now();
      version.failures = 0;
      const probation = new Probation(this.#options.probation);
      // Who replaces nobody has nothing to prove.
      const isNew = beside && probation.verdict === "open" && !isProven(loaded.id);
      version.probation = isNew ? probation : undefined;
      move("ready");
      onEvent({ event: "ready", id: loaded.id });
    } catch (error) {
      await loaded?.close();
      version.failures++;
      version.error = error as Error;
      move("failed");
      onEvent({ event: "failed", version: version.number, reason: wholeReason(error as Error) });
    }
  }

  /** With the settings that are in force; if it cannot be loaded with them, it goes on with those it has. */
  async #renewed(version: Version<V>): Promise<void> {
    if (version.settings === this.#settings || !version.loaded) return;
    version.settings = this.#settings;
    const old = version.loaded;
    try {
      version.loaded = await this.#options.load(version.dir, false, () => {});
      this.#options.onChange();
    } catch (error) {
      const reason = `not with other settings: ${wholeReason(error as Error)}`;
      this.#options.onEvent({ event: "failed", version: version.number, reason });
      return;
    }
    await old.close();
  }

  #judge(version: Version<V>): void {
    const verdict = version.probation?.verdict;
    if (verdict === undefined || verdict === "open" || !version.state.is("ready")) return;
    const reason = String(version.probation);
    version.probation = undefined;
    if (verdict === "passed") {
      if (version.loaded) this.#options.onEvent({ event: "proven", id: version.loaded.id });
      this.#options.onChange();
      this.#retire();
    } else this.#takeBack(version, reason);
  }

  /** Without another one that serves, it goes on: something is better than nothing. */
  #takeBack(version: Version<V>, reason: string): void {
    if (this.#inState("ready").length < 2) return;
    version.error = new Error(reason);
    version.failures = MAX_TRIES;
    const { loaded, number } = version;
    this.#drain(version);
    if (loaded) this.#options.onEvent({ event: "taken back", version: number, id: loaded.id, reason });
    this.reconcile().catch(() => {});
  }

  /** Lets go of what is served and not wanted, once what is wanted has proved itself. */
  #retire(): void {
    const wanted = this.#wanted();
    const serving = wanted.filter(({ state }) => state.is("ready"));
    if (serving.length === 0) return;
    const proven = serving.every(({ probation }) => probation === undefined);
    const idleSince = this.#clock.now() - this.#options.keepWarmMs;
    const old = this.#inState("ready").filter((each) => !wanted.includes(each));
    const { unload, refused } = this.#wishes;
    for (const version of old) {
      const unwelcome = unload.includes(version.number) || refused.includes(version.fingerprint ?? "");
      if (proven || unwelcome || version.askedAt <= idleSince) this.#drain(version);
    }
    this.#clock.clearTimeout(this.#idleCheck);
    const kept = old.filter(({ state }) => state.is("ready")).map(({ askedAt }) => askedAt);
    if (kept.length === 0) return;
    const wait = Math.max(1, Math.min(...kept) - idleSince);
    this.#idleCheck = this.#clock.setTimeout(() => this.#retire(), wait);
  }

  #drain(version: Version<V>): void {
    const drained = this.#drained(version).finally(() => this.#draining.delete(drained));
    this.#draining.add(drained);
  }

  async #drained(version: Version<V>): Promise<void> {
    const { onChange, onEvent } = this.#options;
    version.state.move("draining");
    onChange();
    await this.#pause(HEARD_MS);
    const { loaded } = version;
    await loaded?.close();
    version.loaded = undefined;
    if (version.error) version.state.move("failed");
    else {
      this.#forget(version);
      // It is there still, and may be wanted again.
      if (version.found) this.#versions.add(newVersion(version.found));
    }
    onChange();
    if (!loaded || this.#giveUp.signal.aborted) return;
    onEvent({ event: "closed", id: loaded.id });
    this.#linger(loaded.id);
  }

  #linger(id: ModelId): void {
    const end = () => {
      this.#lingering.delete(id.fingerprint);
      if (!this.#inState("ready").some((each) => each.fingerprint === id.fingerprint))
        void this.#options.unmount(id);
    };
    this.#lingering.set(id.fingerprint, this.#clock.setTimeout(end, LINGER_MS));
  }

  #pause(ms: number): Promise<void> {
    const { signal } = this.#giveUp;
    return new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const timer = this.#clock.setTimeout(resolve, ms);
      const end = () => {
        this.#clock.clearTimeout(timer);
        resolve();
      };
      signal.addEventListener("abort", end, { once: true });
    });
  }

  #inState(...states: readonly VersionState[]): Version<V>[] {
    return [...this.#versions].filter(({ state }) => state.is(...states));
  }
}

function newVersion<V extends Loaded>(found: Found): Version<V> {
  return {
    number: found.version,
    state: versionState(`version ${found.version}`),
    found,
    fingerprint: found.fingerprint,
    loaded: undefined,
    dir: "",
    settings: 0,
    probation: undefined,
    error: undefined,
    failures: 0,
    askedAt: 0,
  };
}

/** What is not known before it is fetched is taken for the same. */
function isSame<V extends Loaded>({ number, fingerprint }: Version<V>, found: Found): boolean {
  if (number !== found.version) return false;
  return fingerprint === undefined || found.fingerprint === undefined || fingerprint === found.fingerprint;
}

const newestFirst = (a: { readonly number: number }, b: { readonly number: number }) => b.number - a.number;

/** What people look for first. */
function rank({ state }: VersionReport): number {
  return state === "available" ? 0 : 1;
}

/** For clients: without this server's folders. */
function told(reason: string): string {
  return withoutFolders(reason).slice(0, MAX_REASON);
}
