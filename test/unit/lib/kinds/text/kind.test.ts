import type { Input } from "../../../../../lib/kinds/kind.ts";
import { MAX_CHARACTERS } from "../../../../../lib/kinds/text/input.ts";
import { text } from "../../../../../lib/kinds/text/kind.ts";
import type { HashedNgrams } from "../../../../../lib/kinds/text/tokenizer.ts";
import { systemClock } from "../../../../../lib/request/clock.ts";
import type { Scope } from "../../../../../lib/request/scope.ts";

const scope: Scope = {
  deadline: Number.POSITIVE_INFINITY,
  signal: new AbortController().signal,
  clock: systemClock,
  requestId: "test",
};
const tokenizer: HashedNgrams = {
  type: "hashed-ngrams",
  buckets: 1000,
  length: 16,
  words: 1,
  characters: [3],
};
const wanted = { type: "text", tokenizer } as const;
const part = { name: "text", tokenizer } as const;

const plain = (body: string): Input => ({ bytes: Buffer.from(body), type: "text/plain" });
const json = (body: unknown): Input => ({
  bytes: Buffer.from(typeof body === "string" ? body : JSON.stringify(body)),
  type: "application/json",
});
const preparer = await text.open({ maxBytes: 1_000_000 });

test("the same text is the same input as JSON and as it is", async () => {
  expect(await preparer.inspect(json({ text: "Grüße 🙂" }), scope)).toEqual({
    ...(await preparer.inspect(plain("Grüße 🙂"), scope)),
    characters: 7,
    bytes: 12,
  });
  expect(await preparer.prepare(json({ text: "Grüße" }), wanted, scope)).toEqual(
    await preparer.prepare(plain("Grüße"), wanted, scope),
  );
});

test.each([
  ["{", "The body is not JSON"],
  ["5", "Expected an object"],
  [{}, "Expected a text for text"],
  [{ text: 5 }, "Expected a text for text but received 5"],
  [{ text: "a", txt: "b" }, 'Unknown key "txt"'],
])("the body %j is malformed", async (body, message) => {
  await expect(preparer.inspect(json(body), scope)).rejects.toMatchObject({
    type: "BAD_REQUEST",
    message: expect.stringContaining(message),
  });
});

test("a text over the bound is too large, one at the bound is read", async () => {
  const longest = "é".repeat(MAX_CHARACTERS);
  expect(await preparer.inspect(plain(longest), scope)).toMatchObject({ characters: MAX_CHARACTERS });
  for (const input of [plain(`${longest}e`), json({ text: `${longest}e` })]) {
    await expect(preparer.inspect(input, scope)).rejects.toMatchObject({ type: "PAYLOAD_TOO_LARGE" });
  }
  const small = await text.open({ maxBytes: 3 });
  await expect(small.inspect(plain("four"), scope)).rejects.toMatchObject({ type: "PAYLOAD_TOO_LARGE" });
});

test("bytes that are no UTF-8 and lone surrogates count as U+FFFD", async () => {
  const replaced = await preparer.inspect(plain("\ufffd"), scope);
  expect(await preparer.inspect({ bytes: Uint8Array.of(0xff), type: "text/plain" }, scope)).toEqual(replaced);
  expect(await preparer.inspect(json('{"text": "\\ud83d"}'), scope)).toEqual(replaced);
});

test("several texts become one batch under the graph's name", async () => {
  const items = await Promise.all(["one", "two"].map((each) => preparer.prepare(plain(each), wanted, scope)));
  const inputs = [{ name: "tokens", dtype: "int32", shape: [16] }] as const;
  const { tokens } = text.collate(items, part, inputs);
  expect(tokens).toMatchObject({ dtype: "int32", shape: [2, 16] });
  expect(tokens?.data.slice(16)).toEqual(items[1]?.["ids"]?.data);
});

test("a manifest must take what the tokenizer gives", () => {
  expect(text.contradictions(part, [{ name: "a", dtype: "int32", shape: [16] }])).toEqual([]);
  expect(text.contradictions(part, [{ name: "a", dtype: "int32", shape: [17] }])).toHaveLength(1);
  expect(text.contradictions(part, [{ name: "a", dtype: "int64", shape: [16] }])).toHaveLength(1);
  expect(text.contradictions(part, [])).toHaveLength(1);
});
