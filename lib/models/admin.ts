import type { Context, Logger, ServiceBroker } from "moleculer";
import { z } from "zod";
import { call } from "../actions.ts";
import { problemsOf } from "../check.ts";
import {
  ConflictError,
  errorCode,
  ModelNotFoundError,
  ServingError,
  VersionNotFoundError,
} from "../errors.ts";
import { catalogOf, describeModel, type KnownModel } from "./catalog.ts";
import { type Change, type Control, changed, LABELS, newer, share, tuning, version } from "./control.ts";

const model = z.string().regex(/^[a-z0-9][a-z0-9.-]{0,63}$/, "the name of a model service");

/** What the host may ask for, and with what. The one declaration: actions, REPL and HTTP check by it. */
export const OPS = {
  list: { about: "what is known of every model's versions", params: z.strictObject({}) },
  load: {
    about: "serve a version besides what the policy says; one that failed is tried again",
    params: z.strictObject({ model, version }),
  },
  unload: {
    about: "serve a version no more; the last that serves stays",
    params: z.strictObject({ model, version }),
  },
  refresh: { about: "look for new versions now", params: z.strictObject({ model }) },
  label: {
    about: "give a label to a version, or (null) take it away; canary has a share of the requests",
    params: z.strictObject({
      model,
      label: z.enum(LABELS),
      version: version.nullable(),
      share: share.optional(),
    }),
  },
  rollback: {
    about: "make an older version stable: the one before the present, or a certain one",
    params: z.strictObject({ model, version: version.optional() }),
  },
  tune: {
    about: "change the bounds of batches, or how many are computed at once",
    params: tuning.extend({ model }),
  },
  drain: {
    about: "have a node take no more work, until it is started anew",
    params: z.strictObject({ node: z.string().min(1).max(200) }),
  },
} as const;

export type Op = keyof typeof OPS;
type Params<Name extends Op> = z.infer<(typeof OPS)[Name]["params"]>;

export function isOp(name: string): name is Op {
  return Object.hasOwn(OPS, name);
}

/** What became of a change. */
export interface Outcome {
  readonly model: string;
  readonly revision: number;
  readonly what: string;
  /** By node: "heard", or the code of an error. Who has not heard is told again until it has. */
  readonly nodes: Readonly<Record<string, string>>;
}

const CALL_TIMEOUT_MS = 5_000;
/** A refresh loads what is new before it answers. */
const REFRESH_TIMEOUT_MS = 120_000;
/** How often it is looked whether every replica has heard of the newest decision. */
const SPREAD_MS = 5_000;

/**
 * Changes what models do, for the host. A change becomes the newest decision about its model, and every replica is told.
 * Replicas hear nobody but those who call them, so it is the dispatchers that see one behind another, and tell it: also
 * one that has just started, and also of what a replica has decided by itself.
 */
export class Admin {
  readonly #broker: ServiceBroker;
  readonly #logger: Logger;
  /** The newest decision about each model: it outlives all replicas of it at once. */
  readonly #newest = new Map<string, Control>();
  /** Who is being told, `<model> <node>`. */
  readonly #telling = new Set<string>();
  readonly #onChange = () => this.#spread();
  #timer: NodeJS.Timeout | undefined;

  constructor(broker: ServiceBroker, logger: Logger) {
    this.#broker = broker;
    this.#logger = logger;
  }

  start(): void {
    this.#broker.localBus.on("$services.changed", this.#onChange);
    this.#timer = setInterval(this.#onChange, SPREAD_MS).unref();
    this.#spread();
  }

  stop(): void {
    this.#broker.localBus.off("$services.changed", this.#onChange);
    clearInterval(this.#timer);
  }

  /**
   * @param by who wants it, for the log
   * @throws BAD_REQUEST for parameters that are none, MODEL_NOT_FOUND, VERSION_NOT_FOUND, CONFLICT
   */
  async perform(op: Op, params: unknown, by: string): Promise<object> {
    const problems = problemsOf(OPS[op].params, params, op);
    if (problems.length > 0) throw new ServingError("BAD_REQUEST", problems.join("; "));
    this.#logger.info("Admin", { by, op, ...(params as object) });
    switch (op) {
      case "list":
        return { models: catalogOf(this.#broker).list().map(describeModel) };
      case "refresh":
        return this.#refresh(params as Params<"refresh">);
      case "drain":
        return this.#drain(params as Params<"drain">);
      default: {
        const { model } = params as { readonly model: string };
        return this.#change(this.#known(model), op, params, by);
      }
    }
  }

  async #change(model: KnownModel, op: Op, params: unknown, by: string): Promise<Outcome> {
    const next = changed(this.#newestOf(model), changeOf(model, op, params), by);
    const { name, heard = new Map() } = model;
    this.#newest.set(name, next);
    const told = [...heard.keys()].map(async (node) => [node, await this.#tell(name, node, next)] as const);
    const nodes = Object.fromEntries(await Promise.all(told));
    const now = this.#newest.get(name);
    if (now?.id !== next.id) throw new ConflictError(name, now?.by ?? "someone else");
    return { model: name, revision: next.revision, what: next.what, nodes };
  }

  async #tell(model: string, nodeID: string, control: Control): Promise<string> {
    const key = `${model} ${nodeID}`;
    this.#telling.add(key);
    try {
      const options = { nodeID, timeout: CALL_TIMEOUT_MS };
      const inForce = await call(this.#broker, "$node.control", { model, control }, options);
      this.#newest.set(model, newer(this.#newest.get(model) ?? control, inForce));
      return "heard";
    } catch (error) {
      return errorCode(error);
    } finally {
      this.#telling.delete(key);
    }
  }

  /** Tells who is behind. */
  #spread(): void {
    const models = catalogOf(this.#broker).list();
    for (const model of models) {
      const newest = this.#newestOf(model);
      if (!newest) continue;
      const { name, heard = new Map<string, Control | undefined>() } = model;
      this.#newest.set(name, newest);
      for (const [node, last] of heard) {
        if (last?.id !== newest.id && !this.#telling.has(`${name} ${node}`)) {
          void this.#tell(name, node, newest);
        }
      }
    }
    for (const name of this.#newest.keys()) {
      if (!models.some((model) => model.name === name)) this.#newest.delete(name);
    }
  }

  async #refresh({ model }: Params<"refresh">): Promise<object> {
    const { name, heard = new Map() } = this.#known(model);
    const looked = [...heard.keys()].map(async (nodeID) => {
      const options = { nodeID, timeout: REFRESH_TIMEOUT_MS };
      const versions = await call(this.#broker, "$node.refresh", { model: name }, options).catch(
        (error: unknown) => ({ error: errorCode(error) }),
      );
      return [nodeID, versions] as const;
    });
    return { model: name, nodes: Object.fromEntries(await Promise.all(looked)) };
  }

  async #drain({ node }: Params<"drain">): Promise<object> {
    const known = this.#broker.registry.nodes.get(node) as { readonly available?: boolean } | undefined;
    if (!known?.available) throw new ServingError("NOT_FOUND", "There is no such node");
    await call(this.#broker, "$node.drain", {}, { nodeID: node, timeout: CALL_TIMEOUT_MS });
    return { node, state: "draining" };
  }

  #known(name: string): KnownModel {
    const model = catalogOf(this.#broker).get(name);
    if (!model) throw new ModelNotFoundError(name);
    return model;
  }

  #newestOf({ name, control }: KnownModel): Control | undefined {
    return newer(this.#newest.get(name), control);
  }
}

/** @throws VERSION_NOT_FOUND if there is nothing to go back to */
function changeOf(model: KnownModel, op: Op, params: unknown): Change {
  const { model: _, ...rest } = params as { readonly model: string };
  if (op === "tune") return { op, tuning: rest };
  if (op !== "rollback") return { op, ...rest } as Change;
  const { version } = rest as Partial<Params<"rollback">>;
  const target = version ?? before(model);
  if (target === undefined) throw new VersionNotFoundError(model.name, "before the present one");
  return { op, version: target };
}

/** The newest version below the one that answers now, of those that have not failed. */
function before({ versions: [first], control, reports = [] }: KnownModel): number | undefined {
  const present = control?.stable ?? first.id.version;
  const older = reports.flatMap(({ version = present, state }) =>
    version < present && state !== "failed" ? version : [],
  );
  return older.length > 0 ? Math.max(...older) : undefined;
}

/** Who asks, as the gateway and the REPL tell it; an action that says nothing is its node's. */
export interface AdminMeta {
  readonly by?: string;
}

/**
 * The actions `admin.<op>` of a service that has an {@link Admin}. A dispatcher's, since it knows every replica: what may
 * speak to a dispatcher is already said to RabbitMQ.
 */
export function adminActions(): Record<string, { handler: AdminHandler }> {
  const handler = (op: Op): AdminHandler =>
    function perform(this: { readonly admin: Admin }, { params, meta, nodeID }) {
      const by = typeof meta.by === "string" ? meta.by.slice(0, 200) : `node ${nodeID}`;
      return this.admin.perform(op, params, by);
    };
  return Object.fromEntries(Object.keys(OPS).map((op) => [`admin.${op}`, { handler: handler(op as Op) }]));
}

type AdminHandler = (this: { readonly admin: Admin }, ctx: Context<object, AdminMeta>) => Promise<object>;
