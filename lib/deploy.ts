import type { Env } from "./env.ts";

/** Place of a service in the path of a request. It sets the defaults of what the service needs. */
export type Role = "gateway" | "dispatcher" | "model" | "service";

/**
 * When a pod more or less is wanted.
 *
 * - `cpu`: by CPU, with nothing but metrics-server in the cluster.
 * - `rule`: one more above 80 % CPU over 1 minute, one fewer below 20 % over 10 minutes, exactly; needs Prometheus.
 * - `queue`: as many as clear what arrives and waits in time; needs Prometheus.
 */
export type ScalingPolicy = "cpu" | "rule" | "queue";

/**
 * What a service needs of the cluster it runs in: `npm run k8s` makes its manifests from it. Moleculer ignores the key
 * `deploy` of a schema, so it is not published to the other nodes as settings are. A mixin's values are the defaults
 * of the services that mix it in.
 */
export interface Deploy {
  /** @default "service" */
  readonly role?: Role;
  /**
   * Cores of a pod: request and limit are the same, so that 80 % means the same to the scheduler, the autoscaler and
   * the pod. A model's are whole, since its engines' threads are.
   * @default by role
   */
  readonly cpu?: number;
  /**
   * Memory of a pod in MiB, request and limit.
   * @default by role
   */
  readonly memoryMiB?: number;
  /**
   * Fewest and most pods that the autoscaler may choose.
   * @default by role
   */
  readonly replicas?: { readonly min?: number; readonly max?: number };
  /** @default "cpu" */
  readonly scaling?: ScalingPolicy;
  /** Settings (variables of `lib/env.ts`) of its pods alone. */
  readonly env?: { readonly [Name in keyof Env]?: string | number };
}
