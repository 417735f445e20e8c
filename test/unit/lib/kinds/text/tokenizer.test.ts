import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import fc from "fast-check";
import { type HashedNgrams, tokenize } from "../../../../../lib/kinds/text/tokenizer.ts";

const SPAM: HashedNgrams = {
  type: "hashed-ngrams",
  buckets: 32768,
  length: 1024,
  words: 2,
  characters: [2, 3, 4],
};

interface Golden {
  readonly tokenizer: HashedNgrams;
  readonly text: string;
  readonly ids: readonly number[];
}

const golden: readonly Golden[] = JSON.parse(
  readFileSync(resolve(import.meta.dirname, "../../../../fixtures/golden/tokenizer.json"), "utf8"),
);

/** Without padding. */
const idsOf = (text: string, tokenizer = SPAM) => [...tokenize(text, tokenizer)].filter((id) => id !== 0);

test.each(golden.map(({ tokenizer, text, ids }) => [text.slice(0, 30), tokenizer, text, ids] as const))(
  "%j becomes the numbers that training makes of it",
  (_, tokenizer, text, ids) => {
    expect(idsOf(text, tokenizer)).toEqual(ids);
  },
);

test("any text becomes ids of the table, each once, then padding", () => {
  const anyText = fc.string({
    unit: fc.nat({ max: 0xffff }).map((unit) => String.fromCharCode(unit)),
    maxLength: 300,
  });
  fc.assert(
    fc.property(anyText, (text) => {
      const ids = tokenize(text, SPAM);
      const used = idsOf(text);
      expect(ids).toHaveLength(SPAM.length);
      expect([...ids.subarray(0, used.length)]).toEqual(used);
      expect(new Set(used).size).toBe(used.length);
      expect(used.every((id) => id > 0 && id < SPAM.buckets)).toBe(true);
    }),
  );
});

test.each([
  ["one letter", "a".repeat(100_000)],
  ["spaces", " ".repeat(100_000)],
  ["marks that normalisation would sort", "\u0301\u0323".repeat(50_000)],
  ["one character that stands for eighteen", "\ufdfa".repeat(100_000)],
  ["lone surrogates", "\udc00\ud800".repeat(50_000)],
  ["emoji", "👩\u200d👩\u200d👧".repeat(12_000)],
])("a hundred thousand characters of %s are read", (_, text) => {
  expect(tokenize(text, SPAM)).toHaveLength(SPAM.length);
});

test("an empty text is padding", () => {
  expect(idsOf("")).toEqual([]);
});

test("what comes after the last id that fits changes nothing", () => {
  const letters = [..."abcdefghij"];
  const start = letters.flatMap((a) => letters.flatMap((b) => letters.map((c) => `${a}z${b}${c}`))).join(" ");
  expect(idsOf(`${start} and more`)).toEqual(idsOf(`${start} or another end`));
});

test("width, case and the number in a telephone number make no difference", () => {
  expect(idsOf("Call 0800 111 now")).toEqual(idsOf("ｃａｌｌ ０９１２ ２４６ NOW"));
});
