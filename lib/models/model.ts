import { existsSync, readdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { nearest, problemsOf } from "../check.ts";
import type { EngineSpec } from "../engines/engine.ts";
import { remoteOf } from "../engines/remote/part.ts";
import { elements, itemAt, type Tensor, type TensorSpec, type Tensors } from "../engines/tensors.ts";
import { ServingError } from "../errors.ts";
import type { InputSpec, Kind } from "../kinds/kind.ts";
import { kindOf } from "../kinds/registry.ts";
import { StartError } from "../start-error.ts";
import { taskOf } from "../tasks/registry.ts";
import type { Task } from "../tasks/task.ts";
import type { ServedVersion } from "../types.ts";
import type { ModelId } from "./identity.ts";
import {
  type GoldenTensor,
  identityOf,
  latestVersion,
  listVersions,
  type Manifest,
  readManifest,
  verifyFiles,
} from "./manifest.ts";
import { selected, type VersionPolicy } from "./policy.ts";

/**
 * The newest version of a model that a service could serve, as far as can be told without loading it.
 *
 * @param fits throws if the service cannot ask it what it asks
 * @throws StartError if there is none, with what is wrong with the newest, or naming the setting that asked for it and the
 *   nearest there is
 */
export function startingModel(
  { modelsDir, model, runtime = "", versionPolicy = { latest: 1 } }: StartingSettings,
  fits: (model: Model) => void = () => {},
): Model {
  const dir = resolve(modelsDir, model);
  let first: unknown;
  // An older one serves while the newest is of no use: as it did before this process started.
  for (const version of selected(allOf(versionPolicy), listVersions(dir))) {
    try {
      const found = new Model(resolve(dir, String(version)), runtime);
      fits(found);
      return found;
    } catch (error) {
      first ??= error;
    }
  }
  throw first ?? noneOf(modelsDir, model, versionPolicy);
}

interface StartingSettings {
  readonly modelsDir: string;
  readonly model: string;
  readonly runtime?: string;
  readonly versionPolicy?: VersionPolicy;
}

/** One that cannot be served gives its place to an older one, so any may be the first. */
function allOf(policy: VersionPolicy): VersionPolicy {
  return policy !== "all" && "specific" in policy ? policy : "all";
}

function noneOf(modelsDir: string, model: string, policy: VersionPolicy): StartError {
  const dir = resolve(modelsDir, model);
  try {
    latestVersion(dir);
    return new StartError(
      `None of the versions in ${dir} is among settings.versionPolicy ${JSON.stringify(policy)}`,
    );
  } catch (error) {
    const near = existsSync(dir) ? undefined : nearest(model, foldersIn(modelsDir));
    const hint = near ? `: did you mean "${near}"?` : "; npm run models:pull or models:add puts one there";
    return new StartError(`${(error as Error).message}, as settings.model "${model}" wants${hint}`);
  }
}

function foldersIn(dir: string): readonly string[] {
  return existsSync(dir)
    ? readdirSync(dir, { withFileTypes: true }).flatMap((e) => (e.isDirectory() ? e.name : []))
    : [];
}

/** One example of what the graph makes of an item. */
export interface Example {
  /** The item as its kind prepares it, a batch of one. */
  readonly item: Tensors;
  readonly outputs: Tensors;
  readonly tolerance: number;
}

/** One version of a model on disk: everything about it but the engines. */
export class Model {
  readonly id: ModelId;
  readonly manifest: Manifest;
  readonly #dir: string;
  readonly #runtime: string;
  readonly #kind: Kind;
  readonly #task: Task;

  /**
   * @param dir a version's folder, with `manifest.json`
   * @param runtime what loads it; "": what the manifest names
   * @throws ManifestError
   */
  constructor(dir: string, runtime = "") {
    this.#dir = resolve(dir);
    this.#runtime = runtime;
    this.manifest = readManifest(dir);
    this.id = identityOf(this.manifest, runtime);
    this.#kind = kindOf(this.manifest.kind.name);
    this.#task = taskOf(this.manifest.task.name);
  }

  /** Reads the files once and compares their digests. @throws ManifestError */
  verify(): Promise<void> {
    return verifyFiles(this.manifest, this.#dir);
  }

  /** What it wants as its input. */
  get input(): InputSpec {
    return this.#kind.wants(this.manifest.kind, this.manifest.inputs);
  }

  /**
   * What the registry says of it.
   *
   * @param ask what the service asks of it
   * @param action what computes it
   * @throws StartError if it cannot be asked that
   */
  served(ask: unknown, action: string): ServedVersion {
    const { task } = this.manifest;
    return {
      id: this.id,
      action,
      engine: this.#runtime || this.manifest.format,
      input: this.input,
      task: {
        name: task.name,
        spec: this.#task.spec(task) as object,
        question: this.#question(ask),
      },
    };
  }

  #question(ask: unknown): unknown {
    const problems = problemsOf(this.#task.ask, ask, "settings.ask");
    if (problems.length > 0) throw new StartError(problems.join("\n  "));
    try {
      return this.#task.question(ask, this.manifest.task);
    } catch (error) {
      throw new StartError((error as Error).message);
    }
  }

  /** @param maxBatch most items in a batch; the model's own bound counts, too */
  engineSpec(maxBatch: number): Omit<EngineSpec, "threads"> {
    const { format, files, remote, inputs, outputs, kind, task } = this.manifest;
    return {
      runtime: format,
      dir: this.#dir,
      files: files.map(({ path }) => path),
      ...(this.#kind.feeds?.(kind, inputs) ?? { inputs }),
      outputs: this.#task.needs(task, outputs),
      ...(remote ? { remote: remoteOf(remote) } : {}),
      maxBatch: Math.min(maxBatch, this.manifest.maxBatch),
    };
  }

  /**
   * The items that a request brings, each a batch of one.
   *
   * @throws BAD_REQUEST if `tensors` is not `count` items as the model's kind prepares them
   */
  split(tensors: Tensors, count: number): Tensors[] {
    const { kind, inputs } = this.manifest;
    for (const spec of this.#kind.prepared(kind, inputs)) assertTensor(tensors?.[spec.name], spec, count);
    return Array.from({ length: count }, (_, index) => itemAt(tensors, index));
  }

  /** Items as a batch for the engine. */
  collate(items: readonly Tensors[]): Tensors {
    const { kind, inputs } = this.manifest;
    return this.#kind.collate(items, kind, inputs);
  }

  /**
   * What the network says of one item.
   *
   * @param outputs of the engine, a batch of one
   * @throws Error if that is no answer
   */
  interpret(outputs: Tensors): unknown {
    return this.#task.interpret(outputs, 0, this.manifest.task);
  }

  /** The manifest's golden examples, with what they have in files. */
  examples(): Example[] {
    const read = (tensors: Readonly<Record<string, GoldenTensor>>) =>
      Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name, this.#golden(tensor)]));
    return (this.manifest.golden ?? []).map(({ inputs, outputs, tolerance }) => ({
      item: read(inputs),
      outputs: read(outputs),
      tolerance,
    }));
  }

  #golden({ dtype, shape, data }: GoldenTensor): Tensor {
    const values = Array.isArray(data)
      ? dtype === "string"
        ? (data as string[])
        : ARRAYS[dtype].from(data as never)
      : fromBytes(dtype, readFileSync(resolve(this.#dir, data.file)));
    return { dtype, shape: [1, ...shape], data: values } as Tensor;
  }
}

/**
 * How the engine's outputs for a golden example differ from it; undefined: they do not, or within its tolerance.
 *
 * @param outputs a batch of one
 */
export function difference({ outputs: golden, tolerance }: Example, outputs: Tensors): string | undefined {
  for (const [name, { data: expected }] of Object.entries(golden)) {
    const actual = outputs[name]?.data ?? [];
    if (actual.length !== expected.length) {
      return `"${name}" has ${actual.length} elements, the example ${expected.length}`;
    }
    for (let i = 0; i < expected.length; i++) {
      const [a, b] = [actual[i], expected[i]];
      // Numbers that are none differ from everything.
      if (a === b || Math.abs(Number(a) - Number(b)) <= tolerance) continue;
      return `"${name}" has ${a} at ${i}, the example ${b} ± ${tolerance}`;
    }
  }
  return undefined;
}

const ARRAYS = {
  uint8: Uint8Array,
  int32: Int32Array,
  int64: { from: (values: readonly number[]) => BigInt64Array.from(values.map(BigInt)) },
  float32: Float32Array,
} as const;

/** Little-endian, as all processors are that run this. */
function fromBytes(dtype: GoldenTensor["dtype"], bytes: Buffer): Tensor["data"] {
  // A copy: a pool's buffer need not begin where wider numbers may.
  const { buffer } = new Uint8Array(bytes);
  switch (dtype) {
    case "uint8":
      return new Uint8Array(buffer);
    case "int32":
      return new Int32Array(buffer);
    case "int64":
      return new BigInt64Array(buffer);
    case "float32":
      return new Float32Array(buffer);
    case "string":
      return JSON.parse(bytes.toString("utf8")) as string[];
  }
}

const CLASSES = {
  uint8: Uint8Array,
  int32: Int32Array,
  int64: BigInt64Array,
  float32: Float32Array,
  string: Array,
} as const;

function assertTensor(tensor: Tensor | undefined, spec: TensorSpec, count: number): void {
  const { name, dtype, shape } = spec;
  const expected = `Expected ${count} × ${dtype}[${shape.map((n) => n ?? "any").join(", ")}] for "${name}"`;
  const fits =
    tensor?.dtype === dtype &&
    Array.isArray(tensor.shape) &&
    tensor.shape.length === shape.length + 1 &&
    tensor.shape[0] === count &&
    shape.every((length, i) => length === null || tensor.shape[i + 1] === length) &&
    tensor.data instanceof CLASSES[dtype] &&
    tensor.data.length === elements(tensor.shape);
  if (fits) return;
  const received = tensor ? `${tensor.dtype}[${String(tensor.shape)}]` : "nothing";
  throw new ServingError("BAD_REQUEST", `${expected} but received ${received}`);
}
