import { z } from "zod";
import { problemsOf } from "../check.ts";
import { KINDS } from "../kinds/registry.ts";
import type { ModelMetadata } from "../types.ts";
import { control } from "./control.ts";
import { MAX_SERVED } from "./policy.ts";
import { VERSION_MOVES } from "./version-state.ts";

/*
 * What another process may say of the models it serves. Whoever may write to the bus writes this too, and each number
 * in it is memory or work in those who believe it: a prepared image of 12000 × 12000 pixels is 430 MB in a dispatcher.
 */

const text = (most: number) => z.string().min(1).max(most);
const count = (most: number) => z.int().min(0).max(most);

const MAX_REPORTS = 64;
/** Characters of a spec (the labels of 20,000 classes are some 400 KB) and of a question, as JSON. */
const MAX_SPEC = 1_000_000;

/** A value that is no more than so many characters of JSON. */
const small = <T extends z.ZodType>(schema: T, most: number) =>
  schema.refine(
    (value) => JSON.stringify(value ?? null).length <= most,
    `at most ${most} characters of JSON`,
  );

const input = z.looseObject({ type: text(64) }).superRefine((value, context) => {
  const wanted = KINDS.find(({ name }) => name === value.type)?.wanted ?? small(z.unknown(), MAX_SPEC);
  for (const { path, message } of wanted.safeParse(value).error?.issues ?? []) {
    context.addIssue({ code: "custom", path: [...path], message });
  }
});

const version = z.looseObject({
  id: z.looseObject({ name: text(128), version: count(Number.MAX_SAFE_INTEGER), fingerprint: text(128) }),
  action: text(256).regex(/^[\w.-]+\.predict$/, "the name of an action that predicts"),
  engine: text(200).optional(),
  down: z.literal(true).optional(),
  input,
  task: z.looseObject({
    name: text(64),
    spec: small(z.looseObject({}), MAX_SPEC),
    question: small(z.unknown(), MAX_SPEC),
  }),
});

const report = z.looseObject({
  version: count(Number.MAX_SAFE_INTEGER).optional(),
  fingerprint: text(128).optional(),
  state: z.string().refine((state) => Object.hasOwn(VERSION_MOVES, state), "the state of a version"),
  error: z.string().max(1000).optional(),
});

const metadata = z.looseObject({
  kind: z.literal("model"),
  question: text(1000),
  versions: z.array(version).min(1).max(MAX_SERVED),
  control: control.optional(),
  reports: z.array(report).max(MAX_REPORTS).optional(),
  batching: z.looseObject({
    maxBatchSize: count(100_000),
    maxQueueSize: count(1_000_000),
    maxQueueDelayMs: z.number().min(0).max(3_600_000),
    concurrency: count(10_000),
  }),
});

/** What is wrong with a model service's metadata; empty if it may be believed. */
export function metadataProblems(given: Partial<ModelMetadata>): readonly string[] {
  const { versions } = given;
  const known = versions && checked.get(versions);
  if (known) return known;
  const problems = problemsOf(metadata, given, "metadata");
  if (typeof versions === "object") checked.set(versions, problems);
  return problems;
}

/** By the list of versions: the registry is looked at often, and a service that changes what it serves has a new one. */
const checked = new WeakMap<object, readonly string[]>();
