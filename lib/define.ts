import type {
  ActionSchema,
  Middleware,
  Service,
  ServiceBroker,
  ServiceSchema,
  TracerExporters,
  TracerOptions,
} from "moleculer";
import type { z } from "zod";
import type { Deploy } from "./deploy.ts";

/** `this` in a service's handlers and methods. */
type Self<Settings, Own> = Omit<Service, "settings"> & { readonly settings: Settings } & Own;

type Handler<This> = (this: This, ctx: never) => unknown;
/** Without a handler it adds to a mixin's action. */
type Action<This> = Handler<This> | (Omit<ActionSchema, "handler"> & { readonly handler?: Handler<This> });

interface Parts<This> {
  readonly deploy?: Deploy;
  readonly methods?: Record<string, (this: This, ...args: never[]) => unknown>;
  /** `false` takes away a mixin's action. */
  readonly actions?: Record<string, Action<This> | false>;
  readonly events?: Record<string, (this: This, ctx: never) => void | Promise<void>>;
  readonly created?: (this: This) => void;
  readonly started?: (this: This) => void | Promise<void>;
  readonly stopped?: (this: This) => void | Promise<void>;
}

type Definition<This> = Omit<ServiceSchema, keyof Parts<This> | "name" | "settings" | "mixins"> & Parts<This>;

/**
 * A mixin that declares the settings of its services: a strict object of zod's, whose defaults are the settings'. What a
 * service gives is checked against it when it is compiled, and when it starts.
 */
export type Mixin<Settings extends z.ZodObject = z.ZodObject> = Partial<ServiceSchema> & {
  readonly settingsSchema: Settings;
};

/** One that declares none, such as moleculer-web's. */
type FreeMixin = Partial<ServiceSchema> & { readonly settingsSchema?: never };

/**
 * Returns the schema as it is; exists only so that `this` and settings have types. `Own` is what the service has besides
 * its settings: fields that lifecycle hooks set, and methods. Its settings are those that its mixin declares, or it
 * declares them itself, as `settingsSchema`: then, too, they are checked when it is compiled, and when it starts.
 *
 *     export default defineService<{ server: Server }>()({ name: "gateway", … })
 */
export function defineService<Own = object>() {
  function define<Settings extends object>(
    schema: Definition<Self<Settings, Own>> & {
      readonly name: string;
      readonly mixins?: readonly FreeMixin[];
      readonly settingsSchema?: never;
      readonly settings?: Settings;
    },
  ): ServiceSchema;
  function define<Settings extends z.ZodObject>(
    schema: Definition<Self<z.output<Settings>, Own>> & {
      readonly name: string;
      readonly mixins?: readonly FreeMixin[];
      readonly settingsSchema: Settings;
      readonly settings: z.input<Settings>;
    },
  ): ServiceSchema;
  // The last one: what is wrong with a service's settings is told by it.
  function define<Settings extends z.ZodObject>(
    schema: Definition<Self<z.output<Settings>, Own>> & {
      readonly name: string;
      readonly mixins: readonly [Mixin<Settings>];
      readonly settingsSchema?: never;
      readonly settings: z.input<Settings>;
    },
  ): ServiceSchema;
  function define(schema: object): ServiceSchema {
    return schema as ServiceSchema;
  }
  return define;
}

/**
 * As {@link defineService}, for mixins: they bear no name, and declare all settings of their services, those of the
 * mixins in them included.
 */
export function defineMixin<Own = object>() {
  function define<Settings extends z.ZodObject>(
    schema: Definition<Self<z.output<Settings>, Own>> & {
      readonly mixins?: readonly Partial<ServiceSchema>[];
      readonly settings: Settings;
    },
  ): Mixin<Settings>;
  function define(
    schema: Definition<Self<object, Own>> & {
      readonly mixins?: readonly FreeMixin[];
      readonly settings?: never;
    },
  ): FreeMixin;
  function define({ settings, ...schema }: { readonly settings?: z.ZodObject }): object {
    return settings ? { ...schema, settings: defaultsOf(settings), settingsSchema: settings } : schema;
  }
  return define;
}

/** The settings that a service need not give. */
function defaultsOf({ shape }: z.ZodObject): Record<string, unknown> {
  const defaults = Object.entries(shape).map(([name, type]) => {
    return [name, (type as z.ZodType).safeParse(undefined).data] as const;
  });
  return Object.fromEntries(defaults.filter(([, value]) => value !== undefined));
}

/** Middlewares that are made for a broker. Moleculer calls such functions, but its types know only plain objects. */
export function defineMiddlewares(
  ...list: readonly (Middleware | ((broker: ServiceBroker) => Middleware))[]
) {
  return list as Middleware[];
}

type Exporter = NonNullable<TracerOptions["exporter"]>;

/** A trace exporter of our own. Moleculer takes instances, but its types know only names and options. */
export function defineExporter(exporter: TracerExporters.Base) {
  return exporter as unknown as Exporter;
}
