import type {
  ActionSchema,
  Middleware,
  Service,
  ServiceBroker,
  ServiceSchema,
  TracerExporters,
  TracerOptions,
} from "moleculer";
import type { Deploy } from "./deploy.ts";

/** `this` in a service's handlers and methods. */
type Self<Settings, Own> = Omit<Service, "settings"> & { readonly settings: Settings } & Own;

type Handler<This> = (this: This, ctx: never) => unknown;
/** Without a handler it adds to a mixin's action. */
type Action<This> = Handler<This> | (Omit<ActionSchema, "handler"> & { readonly handler?: Handler<This> });

interface Parts<Settings, This> {
  readonly deploy?: Deploy;
  readonly settings?: Settings;
  readonly methods?: Record<string, (this: This, ...args: never[]) => unknown>;
  /** `false` takes away a mixin's action. */
  readonly actions?: Record<string, Action<This> | false>;
  readonly events?: Record<string, (this: This, ctx: never) => void | Promise<void>>;
  readonly created?: (this: This) => void;
  readonly started?: (this: This) => void | Promise<void>;
  readonly stopped?: (this: This) => void | Promise<void>;
}

type Definition<Settings, This> = Omit<ServiceSchema, keyof Parts<Settings, This> | "name"> &
  Parts<Settings, This>;

/**
 * Returns the schema as it is; exists only so that `this` has a type. `Own` is what the service has besides its
 * settings: fields that lifecycle hooks set, and methods.
 *
 *     export default defineService<{ server: Server }>()({ name: "gateway", … })
 */
export function defineService<Own = object>() {
  return <Settings extends object>(
    schema: Definition<Settings, Self<Settings, Own>> & { readonly name: string },
  ): ServiceSchema => schema as unknown as ServiceSchema;
}

/** As {@link defineService}, for mixins: they bear no name. */
export function defineMixin<Own = object>() {
  return <Settings extends object>(
    schema: Definition<Settings, Self<Settings, Own>>,
  ): Partial<ServiceSchema> => schema as unknown as Partial<ServiceSchema>;
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
