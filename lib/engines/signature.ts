import type { EngineSpec, ReportedTensor, Signature } from "./engine.ts";
import { elements, itemAt, type TensorSpec, type Tensors, zeros } from "./tensors.ts";

/** Where a model is not what its manifest says, one sentence each. */
export function contradictions(spec: EngineSpec, signature: Signature): string[] {
  const { fixedBatch } = signature;
  return [
    ...spec.inputs.flatMap((input) => contradiction("input", input, signature.inputs)),
    ...spec.outputs.flatMap((output) => contradiction("output", output, signature.outputs)),
    ...signature.inputs
      .filter(({ name }) => !spec.inputs.some((input) => input.name === name))
      .map((input) => `The model wants an input ${describe(input)}, which the manifest does not have`),
    ...(fixedBatch !== undefined && (fixedBatch !== 1 || spec.maxBatch !== 1)
      ? [
          `The model computes ${fixedBatch} at once, no fewer and no more; the manifest says 1 to ${spec.maxBatch}`,
        ]
      : []),
  ];
}

function contradiction(
  kind: "input" | "output",
  wanted: TensorSpec,
  reported: readonly ReportedTensor[],
): string[] {
  const found = reported.find(({ name }) => name === wanted.name);
  const there = reported.map(describe).join(", ") || "none";
  if (!found) return [`Expected an ${kind} ${describe(wanted)} but the model has ${there}`];
  const fits = found.dtype === wanted.dtype && shapesAgree(wanted.shape, found.shape);
  return fits ? [] : [`Expected an ${kind} ${describe(wanted)} but the model's is ${describe(found)}`];
}

/** A length that one side leaves open agrees with any. */
function shapesAgree(a: readonly (number | null)[], b: readonly (number | null)[]): boolean {
  return a.length === b.length && a.every((length, i) => length === null || (b[i] ?? length) === length);
}

function describe({ name, dtype, shape }: ReportedTensor): string {
  return `"${name}" ${dtype}[${["n", ...shape.map((length) => length ?? "any")].join(", ")}]`;
}

/** A batch of zeros of the spec's inputs; where a length is open, one element. */
export function blankBatch(spec: EngineSpec, count: number): Tensors {
  return Object.fromEntries(
    spec.inputs.map(({ name, dtype, shape }) => [name, zeros(dtype, [count, ...shape.map((n) => n ?? 1)])]),
  );
}

/**
 * What is wrong with the outputs of a batch as such, by the spec: a missing one, another type, a shape that does not
 * fit. Undefined: nothing.
 */
export function outputFault(spec: EngineSpec, outputs: Tensors, count: number): string | undefined {
  for (const wanted of spec.outputs) {
    const output = outputs[wanted.name];
    const expected = `Expected an output ${describe(wanted)} with n = ${count}`;
    if (!output) return `${expected} but received none`;
    const { dtype, shape, data } = output;
    const [n, ...item] = shape;
    const fits = dtype === wanted.dtype && n === count && shapesAgree(wanted.shape, item);
    if (!fits) return `${expected} but received ${dtype}[${shape.join(", ")}]`;
    if (data.length !== elements(shape))
      return `${expected} but received ${data.length} elements for ${dtype}[${shape.join(", ")}]`;
  }
  return undefined;
}

/**
 * The outputs item by item; an Error in the place of one that has a number that is none: what was computed from it
 * would mean nothing.
 */
export function settledItems(outputs: Tensors, count: number): (Tensors | Error)[] {
  return Array.from({ length: count }, (_, index) => {
    const item = itemAt(outputs, index);
    const bad = Object.entries(item).find(([, { dtype, data }]) => dtype === "float32" && !allFinite(data));
    return bad ? new Error(`its output "${bad[0]}" is not finite`) : item;
  });
}

function allFinite(data: Float32Array): boolean {
  for (const value of data) if (!Number.isFinite(value)) return false;
  return true;
}
