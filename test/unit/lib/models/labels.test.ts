import { createHash } from "node:crypto";
import type { KnownModel, KnownVersion } from "../../../../lib/models/catalog.ts";
import { type Change, changed } from "../../../../lib/models/control.ts";
import { Labels } from "../../../../lib/models/labels.ts";

/** Replicas by name, with the versions they serve, the first for who names none. */
function model(replicas: Readonly<Record<string, readonly number[]>>, ...changes: Change[]): KnownModel {
  const numbers = [...new Set(Object.values(replicas).flat())];
  const serving = (number: number, only: (versions: readonly number[]) => boolean) =>
    Object.entries(replicas).flatMap(([node, versions]) =>
      versions.includes(number) && only(versions) ? node : [],
    );
  const versions = numbers
    .map((number) => ({
      id: { name: "net", version: number, fingerprint: `f${number}` },
      replicas: serving(number, () => true),
      first: serving(number, ([first]) => first === number),
    }))
    .sort((a, b) => b.replicas.length - a.replicas.length || b.id.version - a.id.version);
  const control = changes.reduce<KnownModel["control"]>(
    (now, change) => changed(now, change, "me"),
    undefined,
  );
  return { name: "m", versions, control } as unknown as KnownModel;
}

const digest = (key: string) => createHash("sha256").update(key).digest("hex");

function chosen(labels: Labels, known: KnownModel, key = "k", wanted?: string): number | undefined {
  const there: readonly KnownVersion[] = known.versions.filter(({ replicas }) => replicas.length > 0);
  return labels.choose(known, there, { key: digest(key), wanted })?.id.version;
}

/** How many of a thousand keys get each version. */
function shares(labels: Labels, known: KnownModel): Record<number, number> {
  const counts: Record<number, number> = {};
  for (let i = 0; i < 1000; i++) {
    const version = chosen(labels, known, `key ${i}`) ?? 0;
    counts[version] = (counts[version] ?? 0) + 1;
  }
  return counts;
}

const stable = (version: number | null): Change => ({ op: "label", label: "stable", version });
const canary = (version: number, share: number): Change => ({ op: "label", label: "canary", version, share });

describe("without labels", () => {
  test("the newest version that every replica has answers", () => {
    expect(shares(new Labels(), model({ a: [2, 1], b: [1] }))).toEqual({ 1: 1000 });
    expect(shares(new Labels(), model({ a: [2, 1], b: [2, 1] }))).toEqual({ 2: 1000 });
  });

  test("while replicas have none in common, each has its share", () => {
    const counts = shares(new Labels(), model({ a: [2], b: [1], c: [1], d: [1] }));
    expect(Object.keys(counts)).toEqual(["1", "2"]);
    expect(counts[2]).toBeGreaterThan(200);
    expect(counts[2]).toBeLessThan(300);
  });
});

describe("a label", () => {
  test("moves when every replica has the version, and not before", () => {
    const labels = new Labels();
    expect(chosen(labels, model({ a: [1], b: [1] }, stable(1)))).toBe(1);
    expect(chosen(labels, model({ a: [2, 1], b: [1] }, stable(1), stable(2)))).toBe(1);
    expect(chosen(labels, model({ a: [2, 1], b: [2, 1] }, stable(1), stable(2)))).toBe(2);
  });

  test("stays where it is while a replica that has just started has not got so far", () => {
    const labels = new Labels();
    const change = stable(1);
    expect(chosen(labels, model({ a: [1, 2], b: [1, 2] }, change))).toBe(1);
    expect(shares(labels, model({ a: [1, 2], b: [2] }, change))).toEqual({ 1: 1000 });
  });

  test("of a version that nobody serves any more labels nothing", () => {
    const labels = new Labels();
    expect(chosen(labels, model({ a: [1, 2] }, stable(1)))).toBe(1);
    expect(chosen(labels, model({ a: [2] }, stable(1)))).toBe(2);
  });

  test("that is taken away gives the requests to the newest again", () => {
    const labels = new Labels();
    expect(chosen(labels, model({ a: [1, 2] }, stable(1)))).toBe(1);
    expect(chosen(labels, model({ a: [2, 1] }, stable(1), stable(null)))).toBe(2);
  });
});

describe("a canary", () => {
  const both = { a: [1, 2], b: [1, 2] };

  test("has its share of the requests, and the rest goes to the others", () => {
    const counts = shares(new Labels(), model(both, canary(2, 0.2)));
    expect(counts[2]).toBeGreaterThan(150);
    expect(counts[2]).toBeLessThan(250);
    expect((counts[1] ?? 0) + (counts[2] ?? 0)).toBe(1000);
  });

  test("keeps a key's requests, and only adds keys when its share grows", () => {
    const labels = new Labels();
    const few = model(both, canary(2, 0.1));
    const more = model(both, canary(2, 0.5));
    for (let i = 0; i < 300; i++) {
      const before = chosen(labels, few, `user ${i}`);
      expect(chosen(labels, few, `user ${i}`)).toBe(before);
      if (before === 2) expect(chosen(labels, more, `user ${i}`)).toBe(2);
    }
  });

  test("gets nothing before every replica has it", () => {
    expect(shares(new Labels(), model({ a: [1, 2], b: [1] }, canary(2, 1)))).toEqual({ 1: 1000 });
  });
});

describe("a request", () => {
  const known = model({ a: [2, 1], b: [2, 1] }, canary(1, 0.5));

  test("may name a version or a label", () => {
    const labels = new Labels();
    expect(chosen(labels, known, "k", "1")).toBe(1);
    expect(chosen(labels, known, "k", "2")).toBe(2);
    for (let i = 0; i < 50; i++) {
      expect(chosen(labels, known, `${i}`, "canary")).toBe(1);
      expect(chosen(labels, known, `${i}`, "stable")).toBe(2);
    }
  });

  test("for what is not served is told so", () => {
    expect(() => chosen(new Labels(), known, "k", "7")).toThrow('m serves no version "7"');
    const plain = model({ a: [1] });
    expect(() => chosen(new Labels(), plain, "k", "canary")).toThrow('m serves no version "canary"');
  });
});
