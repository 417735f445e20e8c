import type { Role, ScalingPolicy } from "../../lib/deploy.ts";
import { EnvironmentError, loadEnv } from "../../lib/env.ts";
import type { Declared } from "./declared.ts";

/** What a service needs, complete and possible. */
export interface Needs {
  readonly file: string;
  readonly name: string;
  readonly role: Role;
  /** Cores. */
  readonly cpu: number;
  readonly memoryMiB: number;
  readonly min: number;
  readonly max: number;
  readonly scaling: ScalingPolicy;
  readonly env: Readonly<Record<string, string>>;
  /** Time a pod takes to finish what it has in flight, in milliseconds. */
  readonly drainGraceMs: number;
}

/**
 * Two pods at least, so that a node may be emptied without an outage. A dispatcher's memory holds images on their way
 * and its decoders, a model's the network once per engine.
 */
const DEFAULTS: Readonly<Record<Role, Pick<Needs, "cpu" | "memoryMiB" | "min" | "max">>> = {
  gateway: { cpu: 1, memoryMiB: 1024, min: 2, max: 10 },
  dispatcher: { cpu: 2, memoryMiB: 1536, min: 2, max: 20 },
  model: { cpu: 2, memoryMiB: 1536, min: 2, max: 20 },
  service: { cpu: 1, memoryMiB: 512, min: 2, max: 10 },
};
const POLICIES: readonly ScalingPolicy[] = ["cpu", "rule", "queue"];

/** Below that Node itself does not start in peace. */
const LEAST_MEMORY_MIB = 128;
const LEAST_CORES = 0.1;

/** Names in the namespace that are not ours to give away. */
const TAKEN = ["rabbitmq", "redis"];

/** Kubernetes' own bound of a label and of a Service's name (RFC 1035). */
const DNS_LABEL = /^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$/;

/** What the manifests set themselves: a value in a service file would be lost or contradict them. */
const FIXED = ["SERVICES", "NODE_ID", "TRANSPORTER", "REDIS_URL", "ADMIN_PORT", "PORT", "HOST"];

/** Thrown when services ask for what cannot be; the message lists every mistake with its file and field. */
export class DeployError extends Error {
  readonly mistakes: readonly string[];

  constructor(mistakes: readonly string[]) {
    super(mistakes.join("\n"));
    this.name = "DeployError";
    this.mistakes = mistakes;
  }
}

/**
 * The needs of every service, by name.
 *
 * @throws DeployError with all mistakes of all files at once
 */
export function resolveNeeds(services: readonly Declared[]): Needs[] {
  const mistakes = [...services.flatMap(mistakesOf), ...duplicates(services)];
  if (mistakes.length > 0) throw new DeployError(mistakes);
  return services.map(complete).sort((a, b) => (a.name < b.name ? -1 : 1));
}

function complete({ file, name, deploy }: Declared): Needs {
  const { role = "service", replicas = {}, scaling = "cpu", env = {}, ...own } = deploy;
  const defaults = DEFAULTS[role];
  const texts = textsOf(env);
  const min = replicas.min ?? Math.min(defaults.min, replicas.max ?? Number.POSITIVE_INFINITY);
  return {
    file,
    name: String(name),
    role,
    cpu: own.cpu ?? defaults.cpu,
    memoryMiB: own.memoryMiB ?? defaults.memoryMiB,
    min,
    max: replicas.max ?? Math.max(defaults.max, min),
    scaling,
    env: texts,
    drainGraceMs: loadEnv(texts).DRAIN_GRACE_MS,
  };
}

function mistakesOf(declared: Declared): string[] {
  const malformed = [
    ...nameMistakes(declared),
    ...unknownFields(declared),
    ...valueMistakes(declared),
    ...environmentMistakes(declared),
  ];
  // Only what is well-formed can be compared.
  return malformed.length > 0 ? malformed : contradictions(declared);
}

/** Collects what is not as expected of a file's fields. */
function expectations({ file }: Declared) {
  const mistakes: string[] = [];
  const expect = (right: boolean, field: string, expected: string, received: unknown) => {
    if (!right) mistakes.push(`${file}: ${field}: expected ${expected} but received ${show(received)}`);
  };
  return { mistakes, expect };
}

function nameMistakes(declared: Declared): string[] {
  const { base, name } = declared;
  const { mistakes, expect } = expectations(declared);
  const isLabel = typeof name === "string" && DNS_LABEL.test(name);
  expect(isLabel, "name", "a DNS label (a-z, 0-9 and -, at most 63)", name);
  expect(!TAKEN.includes(String(name)), "name", `none of ${TAKEN.join(", ")}`, name);
  // SERVICES selects by the file's name: with another inside, the pod would serve what its Deployment is not called.
  expect(!isLabel || name === base, "name", `that of the file, "${base}",`, name);
  return mistakes;
}

function unknownFields(declared: Declared): string[] {
  const { mistakes, expect } = expectations(declared);
  const known = (object: object, fields: readonly string[], prefix: string) => {
    for (const field of Object.keys(object)) {
      expect(fields.includes(field), `${prefix}.${field}`, `a field among ${fields.join(", ")}`, field);
    }
  };
  known(declared.deploy, ["role", "cpu", "memoryMiB", "replicas", "scaling", "env"], "deploy");
  known(declared.deploy.replicas ?? {}, ["min", "max"], "deploy.replicas");
  return mistakes;
}

function valueMistakes(declared: Declared): string[] {
  const { mistakes, expect } = expectations(declared);
  const {
    role = "service",
    cpu = 1,
    memoryMiB = LEAST_MEMORY_MIB,
    replicas,
    scaling = "cpu",
  } = declared.deploy;
  expect(role in DEFAULTS, "deploy.role", Object.keys(DEFAULTS).join(", "), role);
  expect(POLICIES.includes(scaling), "deploy.scaling", POLICIES.join(", "), scaling);
  expect(Number.isFinite(cpu) && cpu >= LEAST_CORES, "deploy.cpu", `${LEAST_CORES} cores or more`, cpu);
  expect(
    Number.isInteger(memoryMiB) && memoryMiB >= LEAST_MEMORY_MIB,
    "deploy.memoryMiB",
    `${LEAST_MEMORY_MIB} MiB or more`,
    memoryMiB,
  );
  for (const bound of ["min", "max"] as const) {
    const count = replicas?.[bound] ?? 1;
    expect(Number.isInteger(count) && count >= 1, `deploy.replicas.${bound}`, "a whole number from 1", count);
  }
  return mistakes;
}

/** Values that are right by themselves and impossible together. */
function contradictions(declared: Declared): string[] {
  const { mistakes, expect } = expectations(declared);
  const { min, max, role, cpu, scaling } = complete(declared);
  expect(min <= max, "deploy.replicas", `min ≤ max (${max})`, min);
  if (role !== "model") {
    const policies = POLICIES.filter((policy) => policy !== "queue").join(", ");
    expect(scaling !== "queue", "deploy.scaling", `${policies}, as only models have queues,`, scaling);
    return mistakes;
  }
  expect(Number.isInteger(cpu), "deploy.cpu", "whole cores, as a model's engines have threads", cpu);
  for (const [field, threads] of [
    ["settings.threads", declared.threads],
    ["deploy.env.ENGINE_THREADS", declared.deploy.env?.ENGINE_THREADS],
  ] as const) {
    expect(Number(threads ?? 0) <= cpu, field, `at most the CPU limit, ${cpu},`, threads);
  }
  return mistakes;
}

function environmentMistakes({ file, deploy: { env = {} } }: Declared): string[] {
  const fixed = Object.keys(env).filter((name) => FIXED.includes(name));
  const mistakes = fixed.map((name) => `${file}: deploy.env.${name}: the manifest sets it itself`);
  const known = new Set(Object.keys(loadEnv({})));
  const unknown = Object.keys(env).filter((name) => !known.has(name));
  mistakes.push(...unknown.map((name) => `${file}: deploy.env.${name}: there is no such setting`));
  try {
    loadEnv(textsOf(env));
  } catch (error) {
    if (!(error instanceof EnvironmentError)) throw error;
    mistakes.push(`${file}: deploy.env: ${error.message}`);
  }
  return mistakes;
}

function duplicates(services: readonly Declared[]): string[] {
  return services.flatMap(({ file, name }, index) => {
    const first = services.find((other) => other.name === name);
    return first && services.indexOf(first) < index
      ? [`${file}: name: "${String(name)}" is the name of ${first.file} too`]
      : [];
  });
}

function textsOf(env: Readonly<Record<string, string | number | undefined>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(env)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => [name, String(value)]),
  );
}

function show(value: unknown): string {
  return typeof value === "string" ? `"${value}"` : String(value);
}
