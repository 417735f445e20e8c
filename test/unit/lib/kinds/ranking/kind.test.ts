import type { TensorSpec } from "../../../../../lib/engines/tensors.ts";
import type { RankingInput } from "../../../../../lib/kinds/ranking/input.ts";
import { type RankingPart, ranking } from "../../../../../lib/kinds/ranking/kind.ts";
import { createScope } from "../../../../../lib/request/scope.ts";

const scope = createScope();
const whole: RankingInput = { type: "ranking", user: true, history: 3, candidates: 2 };

const preparer = await ranking.open({ maxBytes: 10_000 });
const input = (body: unknown) => ({ bytes: Buffer.from(JSON.stringify(body)), type: "application/json" });
const prepare = (body: unknown, wanted = whole) => preparer.prepare(input(body), wanted, scope);
const digest = async (body: unknown) => (await preparer.inspect(input(body), scope)).sha256;

const ids = (name: string, length: number): TensorSpec => ({ name, dtype: "string", shape: [length] });

describe("a request for a ranking", () => {
  test("becomes texts of the graph's lengths", async () => {
    expect(await prepare({ user: "u", history: ["a", "b"], candidates: ["c"] })).toEqual({
      user: { dtype: "string", shape: [1, 1], data: ["u"] },
      history: { dtype: "string", shape: [1, 3], data: ["a", "b", ""] },
      candidates: { dtype: "string", shape: [1, 2], data: ["c", ""] },
    });
  });

  test("keeps of a history the newest, each once where it stood last", async () => {
    const { history } = await prepare({ history: ["a", "b", "c", "a", "d"] });
    expect(history?.data).toEqual(["c", "a", "d"]);
  });

  test("has no tensors that the model has no input for", async () => {
    const wanted: RankingInput = { type: "ranking", user: false, history: 1, candidates: 0 };
    expect(Object.keys(await prepare({ history: ["a"] }, wanted))).toEqual(["history"]);
  });

  test.each<[string, unknown, RankingInput]>([
    ["a user", { user: "u" }, { ...whole, user: false }],
    ["a history", { history: ["a"] }, { ...whole, history: 0 }],
    ["candidates", { candidates: ["a"] }, { ...whole, candidates: 0 }],
    ["more candidates", { candidates: ["a", "b", "c"] }, whole],
  ])("with %s is refused by a model that takes none", async (_, body, wanted) => {
    await expect(prepare(body, wanted)).rejects.toMatchObject({ type: "BAD_REQUEST" });
  });

  test("is the same input whatever its limit, and another with another history", async () => {
    const one = await digest({ user: "u", history: ["a"], limit: 5 });
    expect(await digest({ history: ["a"], limit: 6, user: "u" })).toBe(one);
    expect(await digest({ user: "u", history: ["b"] })).not.toBe(one);
    // Parts of one must not pass for parts of another.
    expect(await digest({ user: "u", candidates: ["a"] })).not.toBe(one);
    expect(await digest({ history: ["u", "a"] })).not.toBe(one);
  });

  test("is of bounded size", async () => {
    await expect(preparer.inspect(input({ user: "x".repeat(10_000) }), scope)).rejects.toMatchObject({
      type: "PAYLOAD_TOO_LARGE",
    });
  });
});

describe("the ranking part of a manifest", () => {
  const part: RankingPart = { name: "ranking", user: "who", history: "liked" };
  const inputs = [ids("who", 1), ids("liked", 5)];

  test("says which input is which", async () => {
    expect(ranking.contradictions(part, inputs)).toEqual([]);
    const wanted = ranking.wants(part, inputs);
    expect(wanted).toEqual({ type: "ranking", user: true, history: 5, candidates: 0 });
    const item = await prepare({ user: "u", history: ["a"] }, wanted);
    const batch = ranking.collate([item, item], part, inputs);
    expect(Object.keys(batch)).toEqual(["who", "liked"]);
    expect(batch["liked"]?.shape).toEqual([2, 5]);
  });

  test.each<[string, RankingPart, readonly TensorSpec[]]>([
    ["names nothing that is known of somebody", { name: "ranking" }, []],
    ["names an input that there is not", { name: "ranking", user: "whom" }, inputs],
    ["leaves out an input", { name: "ranking", user: "who" }, inputs],
    ["names one input twice", { name: "ranking", user: "who", history: "who" }, [ids("who", 1)]],
    ["takes several users", { name: "ranking", user: "who" }, [ids("who", 2)]],
    ["reads more than a request may have", { name: "ranking", history: "liked" }, [ids("liked", 1001)]],
    ["takes numbers", { name: "ranking", user: "who" }, [{ name: "who", dtype: "int64", shape: [1] }]],
    [
      "takes any length",
      { name: "ranking", history: "liked" },
      [{ name: "liked", dtype: "string", shape: [null] }],
    ],
  ])("that %s contradicts its inputs", (_, wrong, specs) => {
    expect(ranking.contradictions(wrong, specs)).not.toEqual([]);
  });
});
