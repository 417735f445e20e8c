import { http } from "../../testkit/http.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";

let server: TestServer;

beforeAll(async () => {
  server = await startServer({ SERVICES: "gateway,dispatcher,films" }, ["examples"]);
}, 90_000);
afterAll(() => server?.stop());

interface Ranked {
  readonly item: string;
  readonly title: string;
  readonly score: number;
}

async function ask(body: unknown) {
  const reply = await http(`${server.url}/api/models/films/predict`, {
    headers: { "content-type": "application/json" },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
  const json = reply.json();
  const { items, basedOn } = json.results?.films ?? {};
  return {
    status: reply.status,
    json,
    ids: (items as Ranked[] | undefined)?.map(({ item }) => item) ?? [],
    basedOn,
  };
}

const ids = (count: number) => Array.from({ length: count }, (_, i) => `f${String(i + 1).padStart(3, "0")}`);

test("who is known, a stranger and a stranger with a history get different rankings, the best first", async () => {
  const [known, stranger, told] = await Promise.all([
    ask({ user: "u0001" }),
    ask({ user: "nobody" }),
    ask({ history: ["f001", "f002"] }),
  ]);
  expect(known).toMatchObject({ status: 200, basedOn: { user: true, history: 0 } });
  expect(stranger).toMatchObject({ status: 200, basedOn: { user: false, history: 0 } });
  expect(told).toMatchObject({ status: 200, basedOn: { user: false, history: 2 } });
  expect(new Set([known, stranger, told].map(({ ids }) => ids.join())).size).toBe(3);
  for (const { ids } of [known, stranger, told]) expect(new Set(ids).size).toBe(10);
  const scores = (known.json.results.films.items as Ranked[]).map(({ score }) => score);
  expect(scores).toEqual([...scores].sort((a, b) => b - a));
});

test("with nothing known the most popular come first, whoever asks", async () => {
  const [nothing, unknown, ignored] = await Promise.all([
    ask({}),
    ask({ user: "nobody" }),
    ask({ history: ["no such film", "__proto__", "🎬"] }),
  ]);
  expect(nothing.ids).toHaveLength(10);
  expect(unknown.ids).toEqual(nothing.ids);
  expect(ignored).toMatchObject({ ids: nothing.ids, basedOn: { user: false, history: 0 } });
});

test("what was liked is not ranked again, and adds to what is remembered of somebody", async () => {
  const before = await ask({ user: "u0001" });
  const [first = "", second = ""] = before.ids;
  const after = await ask({ user: "u0001", history: [first, second, first] });
  expect(after.basedOn).toEqual({ user: true, history: 2 });
  expect(after.ids).not.toContain(first);
  expect(after.ids).not.toContain(second);
  expect(after.ids).toHaveLength(10);
});

test("candidates are ranked and nothing else, as they would be among all", async () => {
  const all = await ask({ user: "u0002", limit: 100 });
  const chosen = [all.ids[50], all.ids[3], all.ids[20]] as string[];
  const few = await ask({ user: "u0002", candidates: [...chosen, "no such film", chosen[0]] });
  expect(few.ids).toEqual([all.ids[3], all.ids[20], all.ids[50]]);
  // None that is known is none to rank, and not all.
  expect((await ask({ candidates: ["no such film"] })).ids).toEqual([]);
});

test("the limit is the client's, and the same request with another is answered from the cache", async () => {
  const ten = await ask({ user: "u0003" });
  const three = await ask({ user: "u0003", limit: 3 });
  expect(three.ids).toEqual(ten.ids.slice(0, 3));
  expect(three.json.results.films.cached).toBe(true);
  expect((await ask({ user: "u0003", limit: 100 })).ids).toHaveLength(100);
});

test("several are asked at once as items", async () => {
  const { status, json } = await ask({ items: [{ user: "u0001" }, { user: 1 }, { history: ["f001"] }] });
  expect(status).toBe(200);
  expect(json.items).toMatchObject([
    { results: { films: { basedOn: { user: true } } } },
    { error: { code: "BAD_REQUEST" } },
    { results: { films: { basedOn: { history: 1 } } } },
  ]);
});

test("the list of models names the catalogue", async () => {
  const { models } = (await http(`${server.url}/api/models`)).json();
  const films = models.find(({ name }: { name: string }) => name === "films");
  expect(films).toMatchObject({ task: "ranking", input: { type: "ranking", history: 64, candidates: 300 } });
  expect(films.items).toHaveLength(300);
  expect(films.items[0]).toEqual({ id: "f001", title: expect.stringContaining("The ") });
});

test.each<[string, unknown, number, string]>([
  ["half a JSON", '{"user": ', 400, "no JSON"],
  ["a list", [], 400, "Expected an object"],
  ["null", "null", 400, "Expected an object"],
  ["a text", '"u0001"', 400, "Expected an object"],
  ["a misspelt key", { histroy: ["f001"] }, 400, 'did you mean "history"?'],
  ["a number for a user", { user: 17 }, 400, "Expected a text of 1 to 64 characters for user"],
  ["an empty user", { user: "" }, 400, "for user"],
  ["a text for a history", { history: "f001" }, 400, "Expected a list for history"],
  ["a history of numbers", { history: [1] }, 400, "for history.0"],
  ["a huge id", { history: ["x".repeat(500_000)] }, 400, "Expected a text of 1 to 64 characters"],
  ["no candidate", { candidates: [] }, 400, "candidates"],
  ["more candidates than there are films", { candidates: ids(301) }, 400, "at most 300 candidates"],
  ["ten thousand items", { history: ids(10_000) }, 413, "1000 ids at most"],
  ["ten thousand wrong items", { candidates: new Array(10_000).fill(5) }, 413, "1000 ids at most"],
  ["a list that is none", { history: { length: 1e9 } }, 400, "Expected a list for history"],
  ["a limit of none", { limit: 0 }, 400, "from 1 to 100"],
  ["a limit out of range", { limit: 101 }, 400, "from 1 to 100"],
  ["half a limit", { limit: 1.5 }, 400, "from 1 to 100"],
  ["an endless limit", '{"limit": 1e999}', 400, "limit"],
  ["a megabyte", { user: "x".repeat(1_100_000) }, 413, "bytes"],
])("%s is refused with its status, and why", async (_, body, status, message) => {
  const { json, ...answer } = await ask(body);
  expect(answer.status).toBe(status);
  expect(json.error.message).toContain(message);
});

test.each<[string, unknown]>([
  ["a thousand ids in the history", { history: ids(1000) }],
  ["duplicates", { history: new Array(1000).fill("f001") }],
  ["lone surrogates", '{"user": "\\ud83d", "history": ["\\udc00", "f001"]}'],
  ["any script", { user: "用户", history: ["ภาพยนตร์", "فيلم", "f001"] }],
])("%s is answered", async (_, body) => {
  expect(await ask(body)).toMatchObject({ status: 200 });
});

test("of a long history the newest are read", async () => {
  const { basedOn } = await ask({ history: ids(100) });
  expect(basedOn).toEqual({ user: false, history: 64 });
});
